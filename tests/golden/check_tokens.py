#!/usr/bin/env python3
"""Compares `holdfast tokenize` with the reference tokenizers, id by id.

    tests/golden/check_tokens.py PATH/TO/holdfast NAME=MODEL…

NAME is one of deepseek_v3, qwen2_5, llama3_1, deepseek_r1_qwen, smollm, minilm, e5_small, or a tiny_… one of
tests/golden/tokens; MODEL a folder with tokenizer.json or a GGUF file with that vocabulary (the same NAME may be
given several times). Without any, the tiny tokenizers, the folders under $HOLDFAST_TOKENIZERS
(tools/golden/fetch_tokenizers.sh fills one) and the Qwen2.5-Coder, SmolLM2, MiniLM and e5 files under
$HOLDFAST_TEST_MODELS are used; what is not there is skipped with one line. Two parts per model: the nasty
strings against their recorded ids, and all texts of $HOLDFAST_SHARED/data/qa against a digest of the ids for
every 50 strings. Where the `tokenizers` package and the reference's tokenizer.json are at hand, a digest that
differs is followed by the first string that does. Standard library only otherwise.
"""
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import unicodedata

import table_rows

HERE = pathlib.Path(__file__).resolve().parent
TOKENS = HERE / "tokens"
SHARED = pathlib.Path(os.environ.get("HOLDFAST_SHARED") or HERE.parents[1] / ".." / "shared")
TOKENIZERS = pathlib.Path(os.environ.get("HOLDFAST_TOKENIZERS") or HERE.parents[1] / "build" / "tokenizers")
NFC = ("qwen2_5", "deepseek_r1_qwen")
BYTE_LEVEL = (*NFC, "deepseek_v3", "llama3_1", "smollm")  # the others lose what their normalisers drop
TINY = (("tiny_wordpiece", "tiny-wordpiece"), ("tiny_wordpiece", "tiny-wordpiece.gguf"),
        ("tiny_unigram_json", "tiny-unigram"), ("tiny_unigram_gguf", "tiny-unigram.gguf"))
ENCODERS = (("minilm", "all-minilm-l6-v2"), ("e5_small", "multilingual-e5-small-q4_0.gguf"))
ARCHITECTURES = {"deepseek_v3": "deepseek-v3", "qwen2_5": "qwen2", "deepseek_r1_qwen": "qwen2", "llama3_1": "llama",
                 "smollm": "llama", "minilm": "bert", "e5_small": "bert", "tiny_wordpiece": "bert",
                 "tiny_unigram_json": "xlm-roberta", "tiny_unigram_gguf": "bert"}


class Count:
    passed = failed = skipped = 0


def run(binary, args, text):
    r = subprocess.run([binary, *args], input=text.encode(), capture_output=True, timeout=300)
    if r.returncode:
        raise ValueError(f"exit {r.returncode}: {r.stderr.decode(errors='replace').strip()}")
    return r.stdout.decode()


def tokenize(binary, model, strings):
    # ASCII escapes: a string that holds a line separator must stay on its line.
    out = run(binary, ["tokenize", "-m", str(model), "--jsonl"], "".join(json.dumps(s) + "\n" for s in strings))
    rows = [json.loads(line) for line in out.split("\n") if line]
    if len(rows) != len(strings):
        raise ValueError(f"{len(rows)} lines for {len(strings)} strings")
    return rows


def report(ok, text):
    Count.passed += ok
    Count.failed += not ok
    print(("ok    " if ok else "FAIL  ") + text)


def row(name, model, what, wrong):
    """A row of docs/models.md: how many strings' (or groups') ids differ."""
    table_rows.add("tokenizer of a GGUF" if str(model).endswith(".gguf") else "tokenizer.json",
                   ARCHITECTURES[name], f"{name}, ids: the tokenizers library; {what}", wrong, 0)


def check_nasty(binary, name, model):
    strings = [json.loads(s) for s in (TOKENS / "nasty.jsonl").read_text().split("\n") if s]
    want = [json.loads(s) for s in (TOKENS / f"{name}.ids.jsonl").read_text().split("\n") if s]
    got = tokenize(binary, model, strings)
    bad = [i for i in range(len(strings)) if got[i] != want[i]]
    report(not bad, f"{name} {model}: nasty strings, {len(strings) - len(bad)} of {len(strings)} equal")
    row(name, model, f"{len(strings)} nasty strings", len(bad))
    for i in bad[:10]:
        print(f"      {json.dumps(strings[i])}\n        got  {got[i]}\n        want {want[i]}")
    if name not in BYTE_LEVEL:
        return
    text, ids = "".join(strings), [i for row in want for i in row]
    if name in NFC:
        text = "".join(unicodedata.normalize("NFC", s) for s in strings)
    back = run(binary, ["detokenize", "-m", str(model)], json.dumps(ids))
    report(back in (text, text + "\n"), f"{name} {model}: detokenize gives the text back")


def qa_strings(path):
    out = {}
    for article in json.loads(path.read_text())["data"]:
        for paragraph in article["paragraphs"]:
            out[paragraph["context"]] = None
            for qa in paragraph["qas"]:
                out[qa["question"]] = None
                for answer in qa["answers"]:
                    out[answer["text"]] = None
    return list(out)


def digest(rows):
    return hashlib.sha256("\n".join(",".join(map(str, r)) for r in rows).encode()).hexdigest()[:12]


def explain(name, strings, got):
    """First string that differs from the live reference, if there is one here."""
    path = TOKENIZERS / name / "tokenizer.json"
    try:
        from tokenizers import Tokenizer
        data = json.loads(path.read_text())
    except (ImportError, OSError):
        return
    data["added_tokens"], data["post_processor"] = [], None
    ref = Tokenizer.from_str(json.dumps(data))
    for s, ids in zip(strings, got):
        want = ref.encode(s, add_special_tokens=False).ids
        if ids != want:
            print(f"      {json.dumps(s, ensure_ascii=False)[:300]}\n        got  {ids[:40]}\n        want {want[:40]}")
            return


def check_qa(binary, name, model):
    for file, ref in json.loads((TOKENS / "qa.digests.json").read_text()).items():
        path = SHARED / "data" / "qa" / file
        if name not in ref:
            continue
        if not path.exists():
            Count.skipped += 1
            print(f"skip  {name} {file}: not under {SHARED}/data/qa (set HOLDFAST_SHARED)")
            continue
        strings, n = qa_strings(path), ref["chunk"]
        got = tokenize(binary, model, strings)
        bad = [k for k, want in enumerate(ref[name]["digests"]) if digest(got[k * n:(k + 1) * n]) != want]
        ok = not bad and len(strings) == ref["strings"]
        row(name, model, f"{file}, {len(strings)} strings", sum(len(got[k * n:(k + 1) * n]) for k in bad))
        report(ok, f"{name} {model}: {file}, {len(strings)} strings, {sum(map(len, got))} ids"
               + (f", {len(bad)} groups of {n} differ, first at string {bad[0] * n}" if bad else ""))
        if bad:
            explain(name, strings[bad[0] * n:(bad[0] + 1) * n], got[bad[0] * n:(bad[0] + 1) * n])


def models_folder():
    env = os.environ
    if env.get("HOLDFAST_TEST_MODELS"):
        return pathlib.Path(env["HOLDFAST_TEST_MODELS"])
    if env.get("HOLDFAST_HOME"):
        return pathlib.Path(env["HOLDFAST_HOME"]) / "models"
    data = env.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local" / "share"
    return pathlib.Path(data) / "holdfast" / "models"


def default_models():
    found = [(n, TOKENIZERS / n) for n in ("deepseek_v3", "qwen2_5", "llama3_1")]
    for name, start, example in (("qwen2_5", "qwen2.5-coder-", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"),
                                 ("smollm", "smollm2-", "SmolLM2-135M-Instruct.Q4_1.gguf")):
        files = [f for f in sorted(models_folder().rglob("*.gguf")) if f.name.lower().startswith(start)]
        found += [(name, f) for f in files or [models_folder() / example]]
    return [(n, TOKENS / f) for n, f in TINY] + found + [(n, models_folder() / f) for n, f in ENCODERS]


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 2
    binary, given = sys.argv[1], [a.split("=", 1) for a in sys.argv[2:]]
    for name, model in given or default_models():
        if not pathlib.Path(model).exists():
            Count.skipped += 1
            print(f"skip  {name}: {model} is not here")
            continue
        for check in (check_nasty, check_qa):
            try:
                check(binary, name, model)
            except (ValueError, OSError, subprocess.TimeoutExpired) as e:
                report(False, f"{name} {model}: {e}")
    print(f"{Count.passed} passed, {Count.failed} failed" + (f", {Count.skipped} skipped" if Count.skipped else ""))
    return 1 if Count.failed else 0


if __name__ == "__main__":
    sys.exit(main())
