#!/usr/bin/env python3
"""Compares a real Qwen2.5-Coder file in holdfast with the float32 reference.

    tests/golden/check_real.py PATH/TO/holdfast MODEL.gguf [--texts NAME,NAME…] [--kernels auto] [-t THREADS]

Three questions, over the positions recorded in tests/golden/real/<model>.json:
1. `--kernels ref` against transformers on the decoded weights: largest difference of the 50 most probable
   tokens' log-probabilities, at most 2e-3;
2. the kernels in use by default (or --kernels) against `ref`: mean KL divergence over the whole vocabulary, at
   most 2e-3;
3. the same: the most probable token agrees at 98% of the positions or more.
The reference kernels are slow: with the 1.5B all seven texts take minutes; --texts en-story,zh-handbook is the
short form. Standard library only.
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
MAX_DIFFERENCE, MAX_KL, MIN_SAME = 2e-3, 2e-3, 0.98


def logits(args, kernels, text, top):
    cmd = [args.binary, "logits", "-m", args.model, "--kernels", kernels, "--tokens", ",".join(map(str, text["tokens"])),
           "--at", ",".join(text["rows"]), "--top", str(top)]
    if args.threads:
        cmd += ["-t", str(args.threads)]
    run = subprocess.run(cmd, capture_output=True, text=True, timeout=3600)
    if run.returncode:
        sys.exit(f"{' '.join(cmd[:4])} …: exit {run.returncode}: {run.stderr.strip()}")
    return {row: {int(i): v for i, v in pairs} for row, pairs in json.loads(run.stdout)["rows"].items()}


def kl(p, q):
    """KL(p‖q) of two log-probability tables over the same vocabulary."""
    return sum(math.exp(a) * (a - q[i]) for i, a in p.items() if a > -40)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("binary")
    p.add_argument("model")
    p.add_argument("--texts")
    p.add_argument("--kernels", default="auto")
    p.add_argument("-t", "--threads", type=int)
    args = p.parse_args()
    stem = pathlib.Path(args.model).name
    ref_path = next((f for f in HERE.glob("real/*.json") if stem.startswith(f.stem)), None)
    if ref_path is None:
        sys.exit(f"no reference in {HERE}/real for {stem}: only " + ", ".join(sorted(f.stem for f in HERE.glob("real/*.json"))))
    chosen = args.texts.split(",") if args.texts else None
    worst = total_kl = 0.0
    n = same = 0
    print(f"{'text':14} {'positions':>9} {'ref: difference':>16} {'mean KL':>10} {'worst KL':>10} {'same argmax':>12}")
    for text in json.loads(ref_path.read_text())["texts"]:
        if chosen and text["name"] not in chosen:
            continue
        ours = logits(args, "ref", text, 1 << 20)
        fast = logits(args, args.kernels, text, 1 << 20)
        difference = max(abs(ours[row].get(i, -math.inf) - v) for row, top in text["rows"].items() for i, v in top)
        kls = [kl(ours[row], fast[row]) for row in text["rows"]]
        hits = sum(max(ours[row], key=ours[row].get) == max(fast[row], key=fast[row].get) for row in text["rows"])
        worst, total_kl, n, same = max(worst, difference), total_kl + sum(kls), n + len(kls), same + hits
        print(f"{text['name']:14} {len(kls):9} {difference:16.2e} {sum(kls) / len(kls):10.2e} {max(kls):10.2e} {hits:6} of {len(kls):2}", flush=True)
    if not n:
        sys.exit(f"no such text: {args.texts}")
    checks = [(worst <= MAX_DIFFERENCE, f"ref against the float32 reference: largest difference {worst:.2e} (at most {MAX_DIFFERENCE})"),
              (total_kl / n <= MAX_KL, f"{args.kernels} against ref: mean KL {total_kl / n:.2e} (at most {MAX_KL})"),
              (same / n >= MIN_SAME, f"{args.kernels} against ref: same argmax at {same} of {n} (at least {MIN_SAME:.0%})")]
    for ok, sentence in checks:
        print(("ok    " if ok else "FAIL  ") + sentence)
    passed = sum(ok for ok, _ in checks)
    print(f"{passed} passed, {len(checks) - passed} failed")
    return 0 if passed == len(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
