#!/usr/bin/env python3
"""The answer benchmark in small: two questions on each of two sets, asked of a served base, with
and without the right passage. Checks what must hold of every answer; how good they are is
bench/answers' business."""

import os
import shutil
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "bench", "answers"))
sys.dont_write_bytecode = True
import answers  # noqa: E402
import common  # noqa: E402

failed = passed = 0


def check(ok, what):
    global failed, passed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("FAILED: " + what)


def check_row(row, texts):
    name = "%s %s %d" % (row["set"], row["mode"], row["id"])
    citations = row["citations"]
    check(bool(citations) == row["found"], name + ": citations exactly where something was found")
    check(0 <= row["confidence"] <= 1, name + ": confidence within 0 and 1")
    check(len(row["retrieved"]) <= answers.N_PASSAGE, name + ": at most five passages")
    for c in citations:
        check(c["verdict"] in ("supported", "reattached", "unsupported"), name + ": a verdict")
        check("[citation:%d]" % c["n"] in row["answer"], name + ": the answer carries its mark")
        text = texts[c["document"]["name"]]
        check(text[c["span"][0]:c["span"][1]] == c["quote"] and c["quote"],
              name + ": the quote stands at its span")
    if row["mode"] == "ours_absent":
        check(row["right"] not in row["retrieved"], name + ": the removed passage is not retrieved")
        check(all(c["document"]["name"] != row["right"] for c in citations),
              name + ": the removed passage is not cited")


def main():
    binary = common.find_binary(sys.argv[1] if len(sys.argv) > 1 else None)
    model = common.find_model("0.5b") or common.find_model("1.5b")
    if not model:
        print("no pulled Qwen2.5-Coder model in %s" % common.models_folder())
        return 77
    if not os.path.isdir(os.path.join(common.SHARED, "data", "qa")):
        print("no question sets: HOLDFAST_SHARED (%s) has no data/qa" % common.SHARED)
        return 77
    work = tempfile.mkdtemp(prefix="holdfast-answers-")
    try:
        lines = common.Lines(os.path.join(work, "answers.jsonl"), ("set", "mode", "id"))
        with common.Server(binary, model, work) as server:
            for name in ("squad", "xquad_zh"):
                one = answers.SetRun(server, name, lines, lambda text: None)
                one.make(work)
                before = server.documents(one.base)
                for question in common.spread(one.questions, 2, 0.5):
                    one.question(question, ["ours", "ours_absent"])
                texts = {}
                for document, number in server.documents(one.base).items():
                    reply = server.need("GET", "/v1/knowledge_bases/%s/documents/%s"
                                        % (one.base, number))
                    texts[document] = reply["text"]
                check(set(before) == set(texts), name + ": removed documents are back")
                for row in [r for r in lines.rows.values() if r["set"] == name]:
                    check_row(row, texts)
        check(len(lines.rows) == 8, "eight answers")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
