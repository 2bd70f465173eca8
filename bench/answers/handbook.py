#!/usr/bin/env python3
"""Questions about the sample handbook: right values, right first citations, right "not found".

The base holds what examples/ holds (handbook and user guide, both languages). Values are compared
after NFKC and lower-casing, without punctuation and spaces, but with % and decimal points kept. A
run may be interrupted; answers are kept in WORK/MODEL/handbook.jsonl.

  python3 bench/answers/handbook.py --models 1.5b
"""

import argparse
import datetime
import json
import os
import statistics
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import common  # noqa: E402

TARGETS = {"value": 0.90, "citation": 0.90, "not_found": 0.85}


def load_questions():
    path = os.path.join(common.ROOT, "tests", "data", "handbook", "questions.jsonl")
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.strip()]


def judge(row, question):
    """What is right about one answer."""
    cited = row.get("citations") or []
    found = row.get("found", False)
    if not question["answerable"]:
        return {"not_found": not found}
    return {"value": found and common.contains(row["answer"], question["answers"], numbers=True),
            "citation": bool(cited) and cited[0]["document"]["name"] == question["document"],
            "retrieved": question["document"] in row["retrieved"], "found": found}


def figures(rows, questions):
    judged = [(q, judge(rows[q["id"],], q)) for q in questions if (q["id"],) in rows]
    out = {}
    for lang in ("en", "zh", None):
        mine = [j for q, j in judged if lang in (None, q["lang"])]
        answerable = [j for j in mine if "value" in j]
        seconds = [rows[q["id"],]["seconds"] for q, _ in judged if lang in (None, q["lang"])]
        out[lang or "both"] = {
            "n": len(answerable), "n_unanswerable": len(mine) - len(answerable),
            "value": common.share(j["value"] for j in answerable),
            "citation": common.share(j["citation"] for j in answerable),
            "not_found": common.share(j["not_found"] for j in mine if "not_found" in j),
            "retrieved": common.share(j["retrieved"] for j in answerable),
            "found": common.share(j["found"] for j in answerable),
            "seconds": statistics.median(seconds) if seconds else None,
        }
    return out


def table(model, numbers):
    text = ("\n## %s\n\n| questions | right value | right first citation | right \"not found\" | "
            "document among the passages retrieved | answered | seconds | number |\n"
            "| --- | --- | --- | --- | --- | --- | --- | --- |\n" % model)
    for lang, f in numbers.items():
        text += "| %s | %s | %s | %s | %s | %s | %s | %d + %d |\n" % (
            lang, common.cell(f["value"]), common.cell(f["citation"]), common.cell(f["not_found"]),
            common.cell(f["retrieved"]), common.cell(f["found"]), common.cell(f["seconds"], 1),
            f["n"], f["n_unanswerable"])
    text += "| wanted | %.2f | %.2f | %.2f | | | | |\n" % tuple(
        TARGETS[k] for k in ("value", "citation", "not_found"))
    return text


def run_model(args, model, path):
    work = os.path.join(args.work, model.replace(os.sep, "_"))
    lines = common.Lines(os.path.join(work, "handbook.jsonl"), ("id",))
    questions = common.spread(load_questions(), args.count) if args.count else load_questions()
    missing = [q for q in questions if not lines.has(q["id"])]
    if missing and not args.only_report:
        with common.Server(args.binary, path, work, args.serve_arg or []) as server:
            for folder in ("handbook", "guide"):
                common.make_base(args.binary, server.kb_dir, "sample",
                                 os.path.join(common.ROOT, "examples", folder))
            for q in missing:
                hits = server.search("sample", q["question"], 5)
                row = server.chat([{"role": "user", "content": q["question"]}], 160, "sample")
                lines.add(dict(row, id=q["id"], question=q["question"], gold=q["answers"],
                               document=q["document"],
                               retrieved=[h["document"]["name"] for h in hits]))
                if not args.quiet:
                    cited = [c["document"]["name"] for c in row.get("citations") or []][:1]
                    print("%s %s → %s %s" % (q["id"], q["answers"][:1], row["answer"][:100], cited),
                          file=sys.stderr, flush=True)
    return figures(lines.rows, questions)


def main():
    parser = argparse.ArgumentParser(description="questions about the sample handbook")
    parser.add_argument("--binary", help="the program (default: build/release/holdfast)")
    parser.add_argument("--models", default="1.5b", help="1.5b, 0.5b, file names or paths")
    parser.add_argument("--count", type=int, help="only so many, evenly spaced")
    parser.add_argument("--work", default=os.path.join(common.ROOT, "build", "bench-answers"))
    parser.add_argument("--out", default=os.path.join(common.ROOT, "bench", "results", "handbook.md"))
    parser.add_argument("--only-report", action="store_true")
    parser.add_argument("--serve-arg", action="append", help="passed on to holdfast serve")
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args()
    args.binary = common.find_binary(args.binary)
    text = "# Questions about the sample handbook\n\n%s; %s; `python3 bench/answers/handbook.py --models %s`.\n" \
        % (datetime.date.today().isoformat(), common.machine_class(), args.models)
    data = {}
    for model in args.models.split(","):
        path = common.find_model(model)
        if not path:
            sys.exit("handbook: no model \"%s\" in %s" % (model, common.models_folder()))
        label = os.path.splitext(os.path.basename(model))[0] if os.sep in model else model
        data[label] = run_model(args, label, path)
        text += table("Qwen2.5-Coder " + label.upper() if label in ("1.5b", "0.5b") else label,
                      data[label])
    if args.out:
        os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
        with open(args.out, "w", encoding="utf-8") as f:
            f.write(text)
        with open(os.path.splitext(args.out)[0] + ".json", "w", encoding="utf-8") as f:
            json.dump({"date": datetime.date.today().isoformat(),
                       "machine": common.machine_class(), "models": data}, f, indent=1)
            f.write("\n")
    print(text)


if __name__ == "__main__":
    main()
