#!/usr/bin/env python3
"""How much the optimised kernels change what a model says: perplexity and KL divergence against `ref`, per path.

    bench/perplexity.py BINARY [--models 0.5b,1.5b] [--kernels avx2,avx512,amx] [-n 512] [--ctx 128] [--out FILE]

An English article (SQuAD) and Chinese passages (CMRC), n tokens of each from $HOLDFAST_SHARED/data/qa, in stretches of
--ctx, each a call of `holdfast eval perplexity --against ref`; once read as prompts, once token by token as in
generating (--prefill 1; half as many tokens). What this machine lacks is left out. Aimed at: perplexity within 0.3% of
ref. The reference kernels take a second for two or three tokens of the 1.5B. Writes Markdown to
bench/results/perplexity.md. Standard library only.
"""
import argparse
import datetime
import json
import math
import os
import pathlib
import shlex
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SHARED = pathlib.Path(os.environ.get("HOLDFAST_SHARED") or HERE.parents[1] / "shared")
MODELS = pathlib.Path(os.environ.get("HOLDFAST_TEST_MODELS") or os.path.expanduser("~/.local/share/holdfast/models"))
TEXTS = {"English": "squad_super_bowl_50.json", "Chinese": "cmrc2018_trial.json"}
MAX_RATIO = 3e-3


def read_text(name):
    data = json.loads((SHARED / "data" / "qa" / name).read_text())["data"]
    return " ".join(p["context"] for d in data[:40] for p in d["paragraphs"])


def ids_of(binary, model, text):
    run = subprocess.run([binary, "tokenize", "-m", str(model)], input=text.encode(), capture_output=True, check=True)
    return json.loads(run.stdout)


def text_of(binary, model, ids):
    return subprocess.run([binary, "detokenize", "-m", str(model)], input=json.dumps(ids).encode(), capture_output=True, check=True).stdout


def stretches(binary, model, text, n, ctx):
    """Pieces of the text of about ctx tokens, whole characters."""
    ids = ids_of(binary, model, text)[:n]
    return [text_of(binary, model, ids[i:i + ctx]).decode("utf-8", "ignore") for i in range(0, len(ids), ctx)]


def evaluate(args, model, kernels, form, piece):
    command = [*shlex.split(args.under), args.binary, "eval", "perplexity", "-m", str(model), "--kernels", kernels, "--against", "ref",
               "--ctx", str(args.ctx + 16), "--json", *(["--prefill", "1"] if form == "generated" else [])]
    run = subprocess.run(command, input=piece.encode(), capture_output=True)
    if run.returncode:
        raise RuntimeError(run.stderr.decode().strip())
    return json.loads(run.stdout)


def measure(args, model, kernels, form):
    """(log of the perplexity ratio, mean KL, largest KL, same top, tokens), over all pieces."""
    loss = other = kl = top = n = rows = 0
    worst = 0.0
    for text in TEXTS.values():
        for piece in stretches(args.binary, model, read_text(text), args.n if form == "prompt" else args.n // 2, args.ctx):
            r = evaluate(args, model, kernels, form, piece)
            a = r["against"]
            loss, other = loss + r["scored"] * math.log(r["perplexity"]), other + r["scored"] * math.log(a["perplexity"])
            kl, top, worst = kl + r["tokens"] * a["mean_kl"], top + r["tokens"] * a["same_top"], max(worst, a["max_kl"])
            n, rows = n + r["scored"], rows + r["tokens"]
    return math.exp(loss / n), math.exp(other / n), kl / rows, worst, top / rows, rows


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("binary")
    p.add_argument("--models", default="0.5b,1.5b")
    p.add_argument("--kernels", default="avx2,avx512,amx")
    p.add_argument("-n", type=int, default=512)
    p.add_argument("--ctx", type=int, default=128)
    p.add_argument("--under", default="", help="what each evaluation runs under")
    p.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "perplexity.md")
    args = p.parse_args()
    commit = subprocess.run(["git", "-C", str(HERE), "rev-parse", "--short=8", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = ["# Perplexity of the optimised kernels", "",
             f"{datetime.date.today()}, state `{commit}`: `bench/perplexity.py`, an English article and Chinese passages, {args.n} tokens of each "
             f"(generated: {args.n // 2}) in stretches of {args.ctx}, against `ref`. Aimed at: a ratio within 0.3%.", "",
             "| file | kernels | rows | tokens | perplexity | of ref | ratio | mean KL | largest KL | same likeliest token |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    worst = 0.0
    for size in args.models.split(","):
        model = MODELS / f"qwen2.5-coder-{size}-instruct-q4_k_m.gguf"
        if not model.exists():
            print(f"{model} is not here (holdfast pull qwen2.5-coder:{size})")
            continue
        for kernels in args.kernels.split(","):
            for form in ("prompt", "generated"):
                try:
                    a, b, kl, most, top, n = measure(args, model, kernels, form)
                except RuntimeError as e:
                    print(f"{size} {kernels}: {e}")
                    break
                ok = abs(a / b - 1) <= MAX_RATIO
                worst = max(worst, abs(a / b - 1))
                lines.append(f"| {size.upper()} Q4_K_M | {kernels} | {form} | {n} | {a:.4f} | {b:.4f} | {a / b:.5f} {'✓' if ok else '✗'} | {kl:.2e} | "
                             f"{most:.2e} | {top:.2%} |")
                print(lines[-1], flush=True)
                args.out.write_text("\n".join(lines) + "\n")
    sys.exit(0 if worst <= MAX_RATIO else 1)


if __name__ == "__main__":
    main()
