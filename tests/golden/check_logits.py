#!/usr/bin/env python3
"""Compares `holdfast logits` with the reference log-probabilities of the tiny models.

    tests/golden/check_logits.py PATH/TO/holdfast [NAME…] [--kernels ref]

Runs every model file and folder that tests/golden/logits/*.json names (or the ones whose name holds one of
NAME) and compares the reference's top log-probabilities by token id. Standard library only.
"""
import argparse
import json
import pathlib
import subprocess
import sys

import table_rows

HERE = pathlib.Path(__file__).resolve().parent


def ask(binary, model, kernels, tokens, rows, top):
    cmd = [binary, "logits", "-m", str(model), "--kernels", kernels, "--tokens", ",".join(map(str, tokens)),
           "--at", ",".join(rows), "--top", str(top)]
    run = subprocess.run(cmd, capture_output=True, text=True, timeout=120)
    if run.returncode:
        raise ValueError(f"exit {run.returncode}: {run.stderr.strip() or run.stdout.strip()}")
    return json.loads(run.stdout)["rows"]


def worst_difference(got_rows, want_rows):
    """Largest |difference| over the reference's ids, and what is wrong otherwise."""
    worst, at = 0.0, ""
    for row, want in want_rows.items():
        got_list = got_rows.get(row)
        if got_list is None:
            return float("inf"), f"row {row} missing"
        if any(a[1] < b[1] for a, b in zip(got_list, got_list[1:])):
            return float("inf"), f"row {row} is not sorted best first"
        got = {int(i): v for i, v in got_list}
        for i, v in want:
            d = abs(got[i] - v) if i in got else float("inf")
            if not d <= worst:
                worst, at = d, f"row {row} id {i}"
    return worst, at


def file_format(ref, file):
    """The file's form, and its types and layout as the reference notes them."""
    form = "GGUF" if file.endswith(".gguf") else "safetensors"
    return f"{form} {ref.get('formats', {}).get(file, '')}".strip()


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("binary")
    p.add_argument("names", nargs="*")
    p.add_argument("--kernels", default="ref")
    args = p.parse_args()
    passed = failed = 0
    print(f"{'model':32} {'ids':>4} {'rows':>4} {'largest difference':>19}")
    for path in sorted(HERE.glob("logits/*.json")):
        ref = json.loads(path.read_text())
        for file in ref["files"]:
            if args.names and not any(n in file for n in args.names):
                continue
            for prompt in ref["prompts"]:
                rows, tokens = prompt["rows"], prompt["tokens"]
                try:
                    # Twice as many as compared: ids of nearly equal probability may change places.
                    top = 2 * max(len(r) for r in rows.values())
                    got = ask(args.binary, HERE / "models" / file, args.kernels, tokens, list(rows), top)
                    worst, at = worst_difference(got, rows)
                    ok = worst <= ref["tolerance"]
                    table_rows.add(file_format(ref, file), ref.get("architecture", ref["name"]),
                                   "tiny random model, log-probabilities: transformers F32 on the same weights; "
                                   f"kernels {args.kernels}", worst, ref["tolerance"])
                    text = f"{worst:19.2e} {'' if ok else 'FAIL at ' + at}"
                except (ValueError, KeyError, OSError, subprocess.TimeoutExpired) as e:
                    ok, text = False, f"{'FAIL':>19} {e}"
                passed, failed = passed + ok, failed + (not ok)
                print(f"{file:32} {len(tokens):4} {len(rows):4} {text}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
