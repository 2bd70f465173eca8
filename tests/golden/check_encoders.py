#!/usr/bin/env python3
"""Compares `holdfast embed` with what transformers computed.

    tests/golden/check_encoders.py PATH/TO/holdfast [NAME…]

Always: the tiny encoders of tests/golden/encoders/*.json, with kernels ref and auto, and that a text's vector does not
depend on the texts beside it. Where they are there: all-MiniLM-L6-v2 (a folder, pulled as minilm) and
multilingual-e5-small (pulled as e5-small) against vectors that tools/golden/make_real_encoders.py recorded.
Standard library only.
"""
import json
import math
import os
import pathlib
import subprocess
import sys

import table_rows

HERE = pathlib.Path(__file__).resolve().parent
MODELS = pathlib.Path(os.environ.get("HOLDFAST_TEST_MODELS") or
                      os.path.expanduser("~/.local/share/holdfast/models"))
REAL = {"minilm": ("all-MiniLM-L6-v2, sentence-transformers", 1e-5, 1e-3),
        "e5-small": ("multilingual-e5-small, transformers on the decoded weights", 1e-4, 1e-3)}
passed = failed = 0


def report(ok, text):
    global passed, failed
    passed, failed = passed + ok, failed + (not ok)
    print(("ok    " if ok else "FAIL  ") + text, flush=True)


def embed(binary, model, lines, *options, kernels="ref"):
    run = subprocess.run([binary, "embed", "-m", str(model), "--kernels", kernels, *options],
                         input="".join(line + "\n" for line in lines), capture_output=True, text=True, timeout=300)
    if run.returncode:
        raise ValueError(f"exit {run.returncode}: {run.stderr.strip()}")
    out = [json.loads(line) for line in run.stdout.splitlines()]
    if len(out) != len(lines):
        raise ValueError(f"{len(lines)} lines in, {len(out)} out")
    return out


def distance(a, b):
    if len(a) != len(b):
        return float("inf")
    return max((abs(x - y) for x, y in zip(a, b)), default=0.0)


def apart(a, b):
    """1 - cosine."""
    dot = sum(x * y for x, y in zip(a, b))
    return 1 - dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def sparse_distance(a, b):
    return max((abs(a.get(i, 0.0) - b.get(i, 0.0)) for i in {*a, *b}), default=0.0)


def kind_of(row):
    return "ids" if "ids" in row else "pair" if "pair" in row else row["as"] or "text"


def worst_rows(binary, model, rows, kernels):
    """Largest difference per head over the rows of one fixture."""
    out = {}

    def note(head, value):
        out[head] = max(out.get(head, 0.0), value)
    for head in ("dense", "sparse", "colbert", "logit"):
        asked = [r for r in rows if head in r]
        for kind in ("ids", "pair", "query", "passage", "text"):
            some = [r for r in asked if kind_of(r) == kind]
            if not some:
                continue
            options = ["--head", "score" if head == "logit" else head]
            options += ["--ids"] if kind == "ids" else ["--as", kind] if kind in ("query", "passage") else []
            lines = [r["text"] if "text" in r else json.dumps(r.get("ids") or r["pair"]) for r in some]
            for want, got in zip(some, embed(binary, model, lines, *options, kernels=kernels)):
                want = want[head]
                if head == "logit":
                    note(head, abs(got["logit"] - want))
                    note("score", abs(got["score"] - 1 / (1 + math.exp(-got["logit"]))))
                elif head == "sparse":
                    note(head, sparse_distance(got, want))
                elif head == "colbert":
                    note(head, max([distance(a, b) for a, b in zip(got, want)] + [abs(len(got) - len(want))]))
                else:
                    note(head, distance(got, want))
    return out


def check_tiny(binary, path):
    ref = json.loads(path.read_text())
    rows = ref.get("ids", []) + ref.get("texts", []) + ref.get("pairs", [])
    for file, kind in ref["files"].items():
        mine = [r for r in rows if "ids" in r or not file.endswith(".gguf")]  # the GGUF file has no tokenizer
        for kernels in ("ref", "auto"):
            try:
                worst = worst_rows(binary, HERE / "models" / file, mine, kernels)
            except (ValueError, KeyError, OSError, subprocess.TimeoutExpired) as e:
                report(False, f"{file} {kernels}: {e}")
                continue
            limit = ref["tolerance"] if kernels == "ref" else 20 * ref["tolerance"]
            for head, value in worst.items():
                report(value <= limit, f"{file:14} {kernels:5} {head:8} {value:.2e} of {limit:.0e}")
                table_rows.add(kind, ref["architecture"], f"tiny random encoder, {head}: transformers F32 on the same "
                               f"weights; kernels {kernels}", value, limit)


def check_invariance(binary, kernels):
    """Bit for bit the same alone, beside others, in another order."""
    model = HERE / "models" / "enc-bert"
    rows = json.loads((HERE / "encoders" / "enc-bert.json").read_text())["ids"]
    lines = [json.dumps(r["ids"]) for r in rows]
    together = embed(binary, model, lines * 40, "--ids", kernels=kernels)
    back = embed(binary, model, lines[::-1], "--ids", kernels=kernels)[::-1]
    alone = [embed(binary, model, [line], "--ids", kernels=kernels)[0] for line in lines]
    threads = embed(binary, model, lines, "--ids", "-t", "3", kernels=kernels)
    small = embed(binary, model, lines, "--ids", "--max-batch-tokens", "64", kernels=kernels)
    same = together == alone * 40 and back == alone and threads == alone and small == alone
    report(same, f"a vector does not depend on its batch, kernels {kernels}")


def find_real(name):
    for path in (MODELS / name, MODELS / (name + ".gguf")):
        if path.exists():
            return path
    note = [p for p in MODELS.glob("*.json") if f'"{name}"' in p.read_text()] if MODELS.is_dir() else []
    return pathlib.Path(str(note[0])[:-5]) if note else None


def check_real(binary, name):
    what, exact, fast = REAL[name]
    path = find_real(name)
    if not path:
        print(f"skip  {name}: not in {MODELS} (holdfast pull {name})")
        return
    rows = json.loads((HERE / "encoders" / f"real-{name}.json").read_text())["texts"]
    for kernels, limit, some in (("ref", exact, rows[:6]), ("auto", fast, rows)):
        try:
            got = []
            for kind in ("query", "passage", None):
                mine = [i for i, r in enumerate(some) if r["as"] == kind]
                options = ["--as", kind] if kind else []
                if mine:
                    out = embed(binary, path, [some[i]["text"] for i in mine], *options, kernels=kernels)
                    got += list(zip(mine, out))
            worst = max(apart(v, some[i]["dense"]) for i, v in got)
        except (ValueError, OSError, subprocess.TimeoutExpired) as e:
            report(False, f"{name} {kernels}: {e}")
            continue
        report(worst <= limit, f"{name} {kernels}: cosine at least {1 - worst:.7f} ({what})")
        form = "GGUF Q4_0" if path.suffix == ".gguf" else "safetensors F32"
        table_rows.add(form, "bert", f"{what}, {len(some)} texts, cosine's distance from 1; kernels {kernels}",
                       max(worst, 0.0), limit)


def main():
    binary, names = sys.argv[1], sys.argv[2:]
    for path in sorted((HERE / "encoders").glob("enc-*.json")):
        if not names or path.stem in names:
            check_tiny(binary, path)
    if not names:
        for kernels in ("ref", "auto"):
            check_invariance(binary, kernels)
    for name in REAL:
        if not names or name in names:
            check_real(binary, name)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
