#!/usr/bin/env python3
"""`holdfast eval perplexity`: its arithmetic, its errors, and a published figure.

    tests/golden/check_perplexity.py PATH/TO/holdfast

- a tiny model: the perplexity equals the one that `holdfast logits --next` gives, stretch by stretch; --against with the
  same kernels finds no divergence, with others a small one;
- SmolLM2, where it is pulled: 256 tokens of an article (from $HOLDFAST_SHARED/data/qa) with `ref` within 0.1% of
  transformers' figure, the kernels in use with a mean KL divergence of at most 2e-3 from `ref` and a perplexity within
  0.3% of its, plus what so few tokens leave open: the log-probabilities of two distributions KL apart differ by about
  sqrt(2 KL) per token, so the mean of n by sqrt(2 KL / n), of which twice is allowed (bench/perplexity.py has the
  larger sample);
- what cannot be evaluated is named.
Standard library only.
"""
import json
import math
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SHARED = pathlib.Path(os.environ.get("HOLDFAST_SHARED") or HERE.parents[1] / ".." / "shared")
MODELS = pathlib.Path(os.environ.get("HOLDFAST_TEST_MODELS") or os.path.expanduser("~/.local/share/holdfast/models"))
TINY = HERE / "models" / "qwen2-untied.gguf"
MAX_RATIO, MAX_KL, MAX_REFERENCE = 3e-3, 2e-3, 1e-3
passed = failed = 0


def report(ok, text):
    global passed, failed
    passed, failed = passed + ok, failed + (not ok)
    print(("ok    " if ok else "FAIL  ") + text, flush=True)


def holdfast(*args, text=""):
    return subprocess.run([sys.argv[1], *map(str, args)], input=text.encode(), capture_output=True, timeout=280)


def evaluate(model, *options, text):
    run = holdfast("eval", "perplexity", "-m", model, "--json", *options, text=text)
    if run.returncode:
        sys.exit(f"eval: exit {run.returncode}: {run.stderr.decode().strip()}")
    return json.loads(run.stdout)


def by_logits(model, ids, ctx):
    total, n = 0.0, 0
    for i in range(0, len(ids), ctx):
        part = ids[i:i + ctx]
        if len(part) > 1:
            out = holdfast("logits", "-m", model, "--kernels", "ref", "--next", "--top", 1, "--tokens", ",".join(map(str, part)),
                           "--at", ",".join(map(str, range(len(part)))))
            follow = json.loads(out.stdout)["next"].values()
            total, n = total + sum(follow), n + len(follow)
    return math.exp(-total / n), n


def check_tiny():
    text = "The quick brown fox, 狐狸 and 12 dogs; " * 6
    ids = json.loads(holdfast("tokenize", "-m", TINY, text=text).stdout)
    want, n = by_logits(TINY, ids, 40)
    got = evaluate(TINY, "--ctx", 40, "--kernels", "ref", "--against", "ref", text=text)
    report(abs(got["perplexity"] / want - 1) < 1e-5, f"perplexity {got['perplexity']:.5f}, by logits --next {want:.5f}")
    report(got["tokens"] == len(ids) and got["scored"] == n, f"{got['scored']} of {got['tokens']} tokens weighed")
    against = got["against"]
    report(against["mean_kl"] < 1e-12 and against["same_top"] == 1 and against["ratio"] == 1, f"the same kernels: {against}")
    got = evaluate(TINY, "--ctx", 40, "-n", 80, "--against", "ref", text=text)
    against = got["against"]
    report(got["tokens"] == 80 and 0 <= against["mean_kl"] < MAX_KL and abs(against["ratio"] - 1) < 0.01,
           f"{got['kernels']} against ref, 80 tokens: {against}")


def check_errors():
    for what, options, text, status in (("no text", [], "", 1), ("a missing file", ["-f", "/nonexistent/text"], "", 1),
                                        ("unknown kernels", ["--against", "cray"], "some words", 1),
                                        ("a stretch of one", ["--ctx", "1"], "some words", 2)):
        run = holdfast("eval", "perplexity", "-m", TINY, *options, text=text)
        report(run.returncode == status and run.stderr.startswith(b"holdfast: ") and not run.stdout,
               f"{what}: {run.stderr.decode().strip()}")
    run = holdfast("eval", "spelling", "-m", TINY)
    report(run.returncode == 2 and b"spelling" in run.stderr, f"an unknown evaluation: {run.stderr.decode().strip()}")


def check_real():
    model = next(iter(sorted(MODELS.glob("SmolLM2*.gguf"))), None)
    article = json.loads((HERE / "real" / "smollm2-135m.json").read_text())["article"]
    path = SHARED / "data" / "qa" / article["file"]
    if not model or not path.exists():
        print(f"skip  SmolLM2: {'no ' + str(path) if model else 'holdfast pull smollm2'}")
        return
    text = " ".join(p["context"] for p in json.loads(path.read_text())["data"][0]["paragraphs"])
    got = evaluate(model, "--ctx", 1024, "-n", 256, "--against", "ref", text=text)
    want, against = article["perplexity"]["256"], got["against"]
    report(abs(against["perplexity"] / want - 1) <= MAX_REFERENCE, f"SmolLM2, ref: {against['perplexity']:.4f}, transformers {want:.4f}")
    allowed = MAX_RATIO + 2 * math.sqrt(2 * against["mean_kl"] / got["scored"])
    report(abs(against["ratio"] - 1) <= allowed,
           f"SmolLM2, {got['kernels']}: {got['perplexity']:.4f}, ratio {against['ratio']:.5f} (within {allowed:.4f})")
    report(against["mean_kl"] <= MAX_KL, f"SmolLM2, {got['kernels']}: mean KL {against['mean_kl']:.2e}, the same likeliest "
           f"token behind {against['same_top']:.1%}")


if __name__ == "__main__":
    check_tiny()
    check_errors()
    check_real()
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)
