#!/usr/bin/env python3
"""What the paged KV cache saves on a trace of conversations: 50 of them, of several turns, made from reading-comprehension
data (a passage, then questions about it), all at once against one server.

Usage: kv_trace.py HOLDFAST MODEL [--conversations 50] [--tokens 48] [--passage 900] [--markdown FILE]
The blocks in use are sampled while the trace runs. At their peak they are held against one contiguous slot for every
request that runs then, as long as the longest conversation gets. Prints JSON; exit status 1 where that is less than 1.6
times as much, 77 without ../shared/data/qa (or $HOLDFAST_SHARED/data/qa).
"""
import argparse
import glob
import http.client
import json
import os
import random
import re
import sys
import tempfile
import threading
import time

from load import Server, free_port, write_section

BLOCK, WANTED = 64, 1.6


def passages(folder):
    """[(passage, [question, …])] of files in SQuAD's form."""
    out = []
    for path in sorted(glob.glob(f"{folder}/*.json")):
        with open(path, encoding="utf-8") as f:
            data = json.load(f)
        for article in data.get("data", []) if isinstance(data, dict) else []:
            for p in article.get("paragraphs", []):
                questions = [q["question"] for q in p.get("qas", [])]
                if len(questions) > 1 and p.get("context"):
                    out.append((p["context"], questions))
    return out


def call(base, method, path, body=None):
    connection = http.client.HTTPConnection(base[7:], timeout=600)
    connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    text = reply.read()
    connection.close()
    if reply.status != 200:
        raise OSError(f"{path}: {reply.status} {text[:200]}")
    return text


class Watch(threading.Thread):
    """The most blocks that are used at once, and how many requests run then."""

    def __init__(self, base):
        super().__init__(daemon=True)
        self.base, self.peak, self.end = base, (0, 0), False

    def run(self):
        while not self.end:
            text = call(self.base, "GET", "/metrics").decode()
            values = dict(re.findall(r"^(\S+) (\S+)$", text, re.M))
            now = int(float(values['holdfast_kv_blocks{state="used"}'])), int(float(values["holdfast_running_requests"]))
            self.peak = max(self.peak, now)
            time.sleep(0.01)


def converse(base, passage, questions, a, lengths, failures):
    messages = []
    try:
        for i, question in enumerate(questions):
            messages.append({"role": "user", "content": f"{passage}\n\n{question}" if not i else question})
            reply = json.loads(call(base, "POST", "/v1/chat/completions",
                                    {"messages": messages, "max_tokens": a.tokens, "temperature": 0, "loop_detection": False}))
            text = reply["choices"][0]["message"]["content"]
            messages.append({"role": "assistant", "content": "".join(c for c in text if c.isprintable()) or "-"})
        lengths.append(reply["usage"]["total_tokens"])
    except OSError as e:
        failures.append(str(e))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("holdfast")
    p.add_argument("model")
    p.add_argument("--conversations", type=int, default=50)
    p.add_argument("--tokens", type=int, default=48)
    p.add_argument("--passage", type=int, default=900, help="characters of a passage at most")
    p.add_argument("--markdown", metavar="FILE")
    a = p.parse_args()
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    folder = os.path.join(os.environ.get("HOLDFAST_SHARED", os.path.join(root, "..", "shared")), "data", "qa")
    all_passages = passages(folder)
    if len(all_passages) < 10:
        print(f"no passages in {folder}")
        return 77
    draw, lengths, failures, port = random.Random(18), [], [], free_port()
    with tempfile.TemporaryDirectory() as home:
        command = [a.holdfast, "serve", "--home", home, "--port", str(port), "-m", a.model, "--max-sequences", str(a.conversations)]
        with Server(command, port) as server:
            watch = Watch(server.base)
            threads = []
            for _ in range(a.conversations):
                passage, questions = draw.choice(all_passages)
                some = draw.sample(questions, min(len(questions), draw.randint(2, 6)))
                threads.append(threading.Thread(target=converse, args=(server.base, passage[:draw.randint(a.passage // 6, a.passage)],
                                                                       some, a, lengths, failures)))
            for t in [watch, *threads]:
                t.start()
            for t in threads:
                t.join()
            watch.end = True
            watch.join()
    if failures:
        print(f"{len(failures)} conversations failed: {failures[0]}")
        return 1
    used, running = watch.peak
    ratio = running * max(lengths) / (used * BLOCK) if used else 0
    out = {"conversations": a.conversations, "longest_tokens": max(lengths), "mean_tokens": sum(lengths) / len(lengths),
           "peak_blocks": used, "peak_tokens": used * BLOCK, "running_at_peak": running,
           "slots_tokens": running * max(lengths), "ratio": round(ratio, 2)}
    print(json.dumps(out))
    if a.markdown:
        write_section(a.markdown, f"KV of {a.conversations} conversations: {os.path.basename(a.model)}",
                      f"At the peak {running} requests ran and held {used} blocks of {BLOCK} tokens; slots as long as the longest "
                      f"conversation ({max(lengths)} tokens; mean {out['mean_tokens']:.0f}) would take {ratio:.2f} times as much.\n")
    return 0 if ratio >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
