#!/usr/bin/env python3
"""How often search finds the right passage.

Each set of $HOLDFAST_SHARED/data/qa (default ../shared beside the repository) becomes one knowledge
base, every context one document; every question is a query. Prints recall at 1 and 5, the mean
reciprocal rank (first 10) and times, and writes bench/results/retrieval.md with --write.

    python3 bench/retrieval.py build/release/holdfast [--write] [SET...]
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = pathlib.Path(os.environ.get("HOLDFAST_SHARED", ROOT.parent / "shared"))
SETS = {  # name: (file, recall at 1 that good bigram BM25 reaches)
    "cmrc": ("cmrc2018_trial.json", 0.97),
    "drcd": ("drcd_dev.json", 0.93),
    "squad": ("squad_super_bowl_50.json", 0.65),
    "xquad_en": ("xquad_en_24.json", 0.90),
    "xquad_zh": ("xquad_zh_24.json", 0.90),
}


def read_set(path):
    """Distinct contexts, and (question, index of its context) pairs."""
    contexts, index, questions = [], {}, []
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            at = index.setdefault(paragraph["context"], len(contexts))
            if at == len(contexts):
                contexts.append(paragraph["context"])
            questions += [(" ".join(qa["question"].split()), at) for qa in paragraph["qas"]]
    return contexts, questions


def measure(program, path, top):
    contexts, questions = read_set(path)
    with tempfile.TemporaryDirectory() as folder:
        documents = pathlib.Path(folder, "documents")
        documents.mkdir()
        for i, context in enumerate(contexts):
            # The name is indexed as a heading: it must not help.
            (documents / f"{i:05d}.txt").write_text(context, encoding="utf-8")
        base = [program, "kb"]
        where = ["--kb", os.path.join(folder, "kb"), "--json"]
        began = time.monotonic()
        added = json.loads(subprocess.run(base + ["add", str(documents)] + where, check=True,
                                          capture_output=True).stdout)
        add_s = time.monotonic() - began
        assert added["failed"] == 0 and added["added"] == len(contexts), added
        began = time.monotonic()
        lines = subprocess.run(base + ["search", "--top", str(top)] + where, check=True,
                               input="\n".join(q for q, _ in questions) + "\n",
                               capture_output=True, encoding="utf-8").stdout.splitlines()
        search_s = time.monotonic() - began
    assert len(lines) == len(questions), (len(lines), len(questions))
    hit1 = hit5 = rank = 0
    misses = []
    for line, (question, right) in zip(lines, questions):
        names = [r["document"]["name"] for r in json.loads(line)["results"]]
        name = f"{right:05d}.txt"
        at = names.index(name) + 1 if name in names else 0
        hit1 += at == 1
        hit5 += 1 <= at <= 5
        rank += 1 / at if at else 0
        if at != 1:
            misses.append((question, at, contexts[right][:60]))
    n = len(questions)
    return {"passages": len(contexts), "questions": n, "recall1": hit1 / n, "recall5": hit5 / n,
            "mrr": rank / n, "add_s": add_s, "ms_per_query": 1000 * search_s / n,
            "misses": misses}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--write", action="store_true", help="write bench/results/retrieval.md")
    parser.add_argument("--misses", type=int, default=0, help="show so many failures per set")
    args = parser.parse_args()
    if not (SHARED / "data" / "qa").is_dir():
        print(f"skipped: {SHARED}/data/qa is not there (HOLDFAST_SHARED names the folder)")
        return 0
    rows, failed = [], False
    for name in args.sets:
        file, floor = SETS[name]
        m = measure(args.program, SHARED / "data" / "qa" / file, 10)
        below = m["recall1"] < floor - 0.005
        failed |= below
        rows.append((name, m, floor))
        print(f"{name:9s} {m['passages']:5d} passages {m['questions']:5d} questions  "
              f"recall@1 {m['recall1']:.3f}  recall@5 {m['recall5']:.3f}  MRR {m['mrr']:.3f}  "
              f"add {m['add_s']:.1f} s  {m['ms_per_query']:.2f} ms/query"
              + ("  BELOW " + str(floor) if below else ""), flush=True)
        for miss in m["misses"][:args.misses]:
            print("   ", miss)
    if args.write:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT,
                                capture_output=True, text=True).stdout.strip()
        lines = ["# Retrieval", "",
                 f"`python3 bench/retrieval.py`, {time.strftime('%Y-%m-%d')}, on top of commit "
                 f"{commit}. Every context of a set is one document; every question a query; "
                 "BM25 over Chinese pairs and words and English stems, no encoder. "
                 "Times include start-up and output as JSON.", "",
                 "| set | passages | questions | recall@1 | recall@5 | MRR@10 | expected recall@1 | "
                 "adding, s | ms per query |", "| --- " * 9 + "|"]
        lines += [f"| {name} | {m['passages']} | {m['questions']} | {m['recall1']:.3f} | "
                  f"{m['recall5']:.3f} | {m['mrr']:.3f} | {floor} | {m['add_s']:.1f} | "
                  f"{m['ms_per_query']:.2f} |" for name, m, floor in rows]
        (ROOT / "bench" / "results" / "retrieval.md").write_text("\n".join(lines) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
