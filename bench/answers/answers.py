#!/usr/bin/env python3
"""How well the program answers from passages, beside two plain prompts over the same passages.

For each set of ../shared/data/qa all passages are put into one knowledge base, one document each.
Every question is asked twice: with its passage in the base, and with it taken out (through the
product's own remove and add). Modes:

  ours          the grounded chat request, right passage in the base
  ours_absent   the same, right passage removed
  plain1, plain1_absent   one plain prompt over the passages that a search finds: answer only from
                the documents, briefly, mark [citation:n], else say "not found"
  plain2, plain2_absent   a shorter plain prompt, no marks asked for
  closed        the question alone

A run may be interrupted: each answer is one line of WORK/MODEL.jsonl and is not asked again.

  python3 bench/answers/answers.py --models 1.5b,0.5b --per-set 40
"""

import argparse
import datetime
import json
import os
import statistics
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import common  # noqa: E402

MODES = ["ours", "ours_absent", "plain1", "plain1_absent", "plain2", "plain2_absent", "closed"]
N_PASSAGE = 5
PLAIN = {
    ("plain1", "zh"): "请只根据上面的资料简短地回答问题，并在答案后用[citation:n]标出所依据资料的编号。"
                      "如果资料里没有答案，就写“资料中未找到”。",
    ("plain1", "en"): "Answer the question briefly, only from the documents above, and mark the "
                      "document you used as [citation:n]. If the documents do not contain the "
                      "answer, say \"not found\".",
    ("plain2", "zh"): "根据资料回答问题，只写答案。资料里没有答案时，只写“资料中未找到”。",
    ("plain2", "en"): "Answer the question from the documents; write only the answer. If the "
                      "documents do not contain the answer, write only \"not found\".",
}
LAYOUT = {"zh": ("资料%d：\n%s\n\n", "问题：%s\n\n"), "en": ("Document %d:\n%s\n\n", "Question: %s\n\n")}


def plain_messages(mode, lang, question, passages):
    document, ask = LAYOUT[lang]
    text = "".join(document % (i + 1, p) for i, p in enumerate(passages))
    return [{"role": "user", "content": text + ask % question + PLAIN[mode, lang]}]


class SetRun:
    """One set's base behind one server, and the asking of its questions."""

    def __init__(self, server, name, lines, log):
        self.server, self.name, self.lines, self.log = server, name, lines, log
        self.passages, self.questions, self.lang = common.load_set(name)
        self.base = name.replace("_", "-")

    def make(self, work):
        folder = os.path.join(work, "passages", self.name)
        common.write_passages(folder, self.passages)
        common.make_base(self.server.binary, self.server.kb_dir, self.base, folder)

    def keep(self, mode, question, row):
        row = dict(set=self.name, mode=mode, id=question["id"], lang=self.lang,
                   question=question["question"], answers=question["answers"],
                   right=common.document_name(question["passage"]), **row)
        self.lines.add(row)
        self.log("%s %s %d: %s → %s" % (self.name, mode, question["id"], question["answers"][0][:40],
                                        row["answer"].replace("\n", " ")[:100]))

    def ask(self, suffix, question, modes):
        """Ours and the plain prompts over the base as it is."""
        text = question["question"]
        hits = None
        for mode in ("ours", "plain1", "plain2"):
            if mode + suffix not in modes or self.lines.has(self.name, mode + suffix, question["id"]):
                continue
            if hits is None:
                hits = self.server.search(self.base, text, N_PASSAGE)
            retrieved = [h["document"]["name"] for h in hits]
            if mode == "ours":
                reply = self.server.chat([{"role": "user", "content": text}], 160, self.base)
            elif hits:
                reply = self.server.chat(plain_messages(mode, self.lang, text,
                                                        [h["text"] for h in hits]), 80)
            else:
                reply = {"answer": "not found"}
            self.keep(mode + suffix, question, dict(reply, retrieved=retrieved))

    def question(self, question, modes):
        def left(*wanted):
            return [m for m in wanted
                    if m in modes and not self.lines.has(self.name, m, question["id"])]

        if left("closed"):
            reply = self.server.chat([{"role": "user", "content": question["question"]}], 80)
            self.keep("closed", question, dict(reply, retrieved=[]))
        if left("ours", "plain1", "plain2"):
            self.ask("", question, modes)
        if left("ours_absent", "plain1_absent", "plain2_absent"):
            name = common.document_name(question["passage"])
            document_id = self.server.documents(self.base).get(name)
            if document_id is not None:
                self.server.remove(self.base, document_id)
            try:
                self.ask("_absent", question, modes)
            finally:
                self.server.add(self.base, name, self.passages[question["passage"]])


# --- the table ------------------------------------------------------------------------------------


def not_found(row):
    if "found" in row:
        return not row["found"]
    return common.says_not_found(row["answer"])


def right(row):
    return not not_found(row) and common.contains(row["answer"], row["answers"])


def first_cited(row):
    """The document of the first citation, or None."""
    if "found" in row:
        cited = row.get("citations") or []
        return cited[0]["document"]["name"] if cited else None
    n = common.first_mark(row["answer"])
    return row["retrieved"][n - 1] if n and n <= len(row["retrieved"]) else None


def figures(rows, mode):
    present = [r for r in rows if r["mode"] == mode]
    absent = [r for r in rows if r["mode"] == mode + "_absent"]
    there = [r for r in present if r["right"] in r["retrieved"]]
    given = [r for r in there if not not_found(r)]
    out = {
        "n": len(present), "n_absent": len(absent),
        "right": common.share(right(r) for r in present),
        "not_found": common.share(not_found(r) for r in absent),
        "false_not_found": common.share(not_found(r) for r in present),
        "retrieved": common.share(r["right"] in r["retrieved"] for r in present),
        "first": common.share(r["retrieved"][:1] == [r["right"]] for r in present),
        "citation": common.share(first_cited(r) == r["right"] for r in there),
        "citation_given": common.share(first_cited(r) == r["right"] for r in given),
        "seconds": statistics.median(r["seconds"] for r in present if "seconds" in r)
        if any("seconds" in r for r in present) else None,
        "length": statistics.median(len(r["answer"]) for r in present) if present else None,
    }
    both = out["right"], out["not_found"]
    out["mean"] = None if None in both else sum(both) / 2
    return out


HEAD = ("| set | way | right | \"not found\" right | mean | first citation: of all retrieved | "
        "of those answered | said \"not found\" wrongly | seconds | questions |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")


def table(rows):
    text, data = HEAD, {}
    for name in [s for s in common.SETS if any(r["set"] == s for r in rows)]:
        mine = [r for r in rows if r["set"] == name]
        data[name] = {}
        for mode in ("ours", "plain1", "plain2", "closed"):
            f = data[name][mode] = figures(mine, mode)
            if not f["n"] and not f["n_absent"]:
                continue
            label = {"ours": "**ours**", "plain1": "plain prompt 1", "plain2": "plain prompt 2",
                     "closed": "closed book"}[mode]
            cite = mode in ("ours", "plain1")
            text += "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %d + %d |\n" % (
                name, label, common.cell(f["right"]), common.cell(f["not_found"]),
                common.cell(f["mean"]), common.cell(f["citation"] if cite else None),
                common.cell(f["citation_given"] if cite else None),
                common.cell(f["false_not_found"]) if mode != "closed" else "–",
                common.cell(f["seconds"], 1), f["n"], f["n_absent"])
        ours = data[name]["ours"]
        if ours["n"]:
            text += "| %s | *retrieval* | first %s, among %d %s | | | | | | | |\n" % (
                name, common.cell(ours["first"]), N_PASSAGE, common.cell(ours["retrieved"]))
    return text, data


def report(args, results):
    date = datetime.date.today().isoformat()
    text = ["# Answers from passages, with real models\n\n",
            "%s; %s; `python3 bench/answers/answers.py --models %s --per-set %d`.\n\n"
            % (date, common.machine_class(), args.models, args.per_set),
            "\"right\": share of answers that contain a gold answer (after NFKC, lower case, "
            "punctuation and spaces removed), the right passage in the base. \"not found\" right: "
            "share that say so when the right passage has been removed. mean: of these two. First "
            "citation: share whose first citation is the right passage, where it is among the %d "
            "passages retrieved; once of all such questions, once of those that were answered. "
            "Each set's passages are one base. Questions: with + without the right passage.\n"
            % N_PASSAGE]
    data = {"date": date, "machine": common.machine_class(), "models": {}}
    for model, rows in results:
        body, numbers = table(rows)
        text.append("\n## Qwen2.5-Coder %s\n\n%s" % (model.upper(), body) if model in
                    ("1.5b", "0.5b") else "\n## %s\n\n%s" % (model, body))
        data["models"][model] = numbers
    text = "".join(text)
    if args.out:
        os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
        with open(args.out, "w", encoding="utf-8") as f:
            f.write(text)
        with open(os.path.splitext(args.out)[0] + ".json", "w", encoding="utf-8") as f:
            json.dump(data, f, indent=1, ensure_ascii=False)
            f.write("\n")
    print(text)
    return data


def run_model(args, model, path, log):
    """Asks what is not answered yet; returns the rows of the chosen questions."""
    work = os.path.join(args.work, model)
    lines = common.Lines(os.path.join(work, "answers.jsonl"), ("set", "mode", "id"))
    chosen = {}
    for name in args.sets:
        _, questions, _ = common.load_set(name)
        chosen[name] = common.spread(questions, args.per_set, args.start)
    missing = [(s, m, q["id"]) for s in args.sets for q in chosen[s] for m in args.modes
               if not lines.has(s, m, q["id"])]
    if missing and not args.only_report:
        extra = args.serve_arg or []
        with common.Server(args.binary, path, work, extra) as server:
            runs = {}
            for name in {s for s, _, _ in missing}:
                runs[name] = SetRun(server, name, lines, log)
                runs[name].make(work)
            for i in range(args.per_set):  # sets in turn: an unfinished run shows all of them
                for name in sorted(runs):
                    if i < len(chosen[name]):
                        runs[name].question(chosen[name][i], args.modes)
    keys = {(s, q["id"]) for s in args.sets for q in chosen[s]}
    return [r for r in lines.rows.values() if (r["set"], r["id"]) in keys and r["mode"] in args.modes]


def main():
    parser = argparse.ArgumentParser(description="answers from passages, ours beside plain prompts")
    parser.add_argument("--binary", help="the program (default: build/release/holdfast)")
    parser.add_argument("--models", default="1.5b", help="1.5b, 0.5b, file names or paths")
    parser.add_argument("--sets", default=",".join(common.SETS))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--per-set", type=int, default=40, help="questions, evenly spaced")
    parser.add_argument("--start", type=float, default=0.0, help="0..1: shifts them within a step")
    parser.add_argument("--work", default=os.path.join(common.ROOT, "build", "bench-answers"))
    parser.add_argument("--out", default=os.path.join(common.ROOT, "bench", "results", "answers.md"))
    parser.add_argument("--only-report", action="store_true", help="the table of what is there")
    parser.add_argument("--serve-arg", action="append", help="passed on to holdfast serve")
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args()
    args.binary = common.find_binary(args.binary)
    args.sets, args.modes = args.sets.split(","), args.modes.split(",")

    def log(text):
        if not args.quiet:
            print(text, file=sys.stderr, flush=True)

    results = []
    for model in args.models.split(","):
        path = common.find_model(model)
        if not path:
            sys.exit("answers: no model \"%s\" in %s (holdfast pull qwen2.5-coder:%s)"
                     % (model, common.models_folder(), model))
        results.append((os.path.splitext(os.path.basename(model))[0] if os.sep in model else model,
                        run_model(args, model.replace(os.sep, "_"), path, log)))
    report(args, results)


if __name__ == "__main__":
    main()
