#!/usr/bin/env python3
"""How soon an answer from documents begins: one question at a time over five passages, nothing of it
in the prefix cache but what every question begins with.

The server is warm; each question is asked once, over the stream. Predicted is what `holdfast bench`'s
prefill rate gives for the prompt tokens that were not cached, plus one second; reached is the time to
the first piece of text that the client gets. The first question, with nothing cached at all, is given
apart.

  python3 bench/answers/latency.py --model 1.5b --count 20
"""

import argparse
import datetime
import http.client
import json
import os
import statistics
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import common  # noqa: E402
import handbook  # noqa: E402


def prefill_rate(binary, model):
    out = json.loads(common.run(binary, "bench", "-m", model, "-p", "512", "-n", "16", "--json"))
    return out["prefill_tps"]


def ask(server, base, question):
    """Seconds to the first text, and the usage."""
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 160,
            "knowledge_base": base, "stream": True,
            "stream_options": {"include_usage": True}}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    begin, first, usage = time.time(), None, {}
    connection.request("POST", "/v1/chat/completions", json.dumps(body, ensure_ascii=False).encode(),
                       {"Content-Type": "application/json"})
    reply = connection.getresponse()
    if reply.status != 200:
        raise RuntimeError("%d %s" % (reply.status, reply.read(300)))
    for line in reply:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        delta = event["choices"][0]["delta"] if event.get("choices") else {}
        if first is None and delta.get("content"):
            first = time.time() - begin
        usage = event.get("usage") or usage
    connection.close()
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return {"question": question, "first_s": first, "prompt": usage["prompt_tokens"],
            "prefilled": usage["prompt_tokens"] - cached}


def main():
    parser = argparse.ArgumentParser(description="time to the first text of an answer")
    parser.add_argument("--binary")
    parser.add_argument("--model", default="1.5b")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--out")
    args = parser.parse_args()
    binary, model = common.find_binary(args.binary), common.find_model(args.model)
    questions = common.spread(handbook.load_questions(), args.count + 1)
    rate = prefill_rate(binary, model)
    rows = []
    with tempfile.TemporaryDirectory() as folder, \
            common.Server(binary, model, folder) as server:
        for name in ("handbook", "guide"):
            common.make_base(binary, server.kb_dir, "sample",
                             os.path.join(common.ROOT, "examples", name))
        for q in questions:
            row = ask(server, "sample", q["question"])
            row["predicted_s"] = row["prefilled"] / rate + 1
            rows.append(row)
            print("%5.2f s, predicted %5.2f, %4d tokens, %4d prefilled: %s" % (
                row["first_s"], row["predicted_s"], row["prompt"], row["prefilled"],
                row["question"]), file=sys.stderr, flush=True)
    first, rest = rows[0], rows[1:]
    within = common.share(r["first_s"] <= r["predicted_s"] for r in rest)
    text = ("# How soon an answer begins\n\n%s; %s; Qwen2.5-Coder %s; prefill %.0f tokens/s; "
            "`python3 bench/answers/latency.py --model %s --count %d`.\n\n"
            "| | first text, s | predicted + 1 s | tokens prefilled |\n| --- | --- | --- | --- |\n"
            "| first question after the start | %.2f | %.2f | %d |\n"
            "| median of %d further ones | %.2f | %.2f | %d |\n| slowest of them | %.2f | %.2f | %d |\n\n"
            "Within the prediction: %.0f%%. The text comes when the whole sentence has been generated and "
            "checked.\n") % (
        datetime.date.today().isoformat(), common.machine_class(), args.model.upper(), rate,
        args.model, args.count, first["first_s"], first["predicted_s"], first["prefilled"], len(rest),
        *(statistics.median(r[k] for r in rest) for k in ("first_s", "predicted_s", "prefilled")),
        *(max(rest, key=lambda r: r["first_s"])[k] for k in ("first_s", "predicted_s", "prefilled")),
        100 * within)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as f:
            f.write(text)
    print(text)


if __name__ == "__main__":
    main()
