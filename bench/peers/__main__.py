#!/usr/bin/env python3
"""Holdfast beside llama.cpp and ik_llama.cpp: same files, same machine, turn by turn in one run.

    python3 bench/peers BINARY [SUITE…] [--ik DIR] [--rounds 3]
    python3 bench/peers --report            makes the pages anew from what is recorded

SUITES: real (both Qwen2.5-Coder files), types (1.5B with random weights in five types), large (R1-Distill-7B's and
Llama-8B's shapes), moe (DeepSeek-V3's shape), batch (1 to 16 sequences), context (512 to 16,384 tokens), threads,
busy (one core kept busy); `-avx2` behind a name runs it with --kernels avx2, beside peers built for AVX2 alone.
Without a name: real, types, batch, threads.

Peers: the npm package node-llama-cpp (brought by npm), llama.cpp's llama-bench, built from the source inside the PyPI
package llama-cpp-python (minutes, once), or of a build that --llama names; ik_llama.cpp where --ik names a build of its
llama-bench, as it is and with run-time repacking (-rtr). Files with random weights are made by tools/random_gguf.py
(numpy) in --random and stay there, up to 20 GB in all.

Turns alternate, each a process of its own with a warm-up pass, and medians are compared. The record is
bench/results/peers-DATE-COMMIT.json, one file per state of the code; what it holds is not measured again, so a run that
was stopped goes on. The pages made of all records are bench/results/README.md and the plots beside it. Standard library only.
"""
import argparse
import datetime
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time

import engines
import report

ROOT = engines.ROOT
RESULTS = ROOT / "bench" / "results"
REAL = {"1.5B": "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", "0.5B": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"}
TYPES = ["q4_0", "q4_k", "q5_0", "q6_k", "q8_0"]


def case(label, file, p, n, **more):
    """`label` names the row; `file` a real one's size or (shape, type) of random weights."""
    return {"label": label, "file": file, "p": p, "n": n, "t": 2, "batch": 1, "kernels": "auto", "peers": True, **more}


SUITES = {
    "real": [case(f"{size} Q4_K_M, real", size, 512, 32) for size in REAL],
    "types": [case(f"1.5B {t.upper()}", ("qwen2-1.5b", t), 256, 24) for t in TYPES],
    "large": [case("7B Q4_K", ("qwen2-7b", "q4_k"), 256, 16), case("8B Q4_K", ("llama-8b", "q4_k"), 256, 16)],
    "moe": [case("DeepSeek-V3-shaped, 13.9B Q4_0", ("deepseek-v3-14b", "q4_0"), 256, 24)],
    "batch": [case(f"{label}, {b} at once", file, 64, 24, batch=b, peers=False)
              for label, file in (("1.5B Q4_K_M, real", "1.5B"), ("1.5B Q8_0", ("qwen2-1.5b", "q8_0")))
              for b in (1, 2, 4, 8, 16)],
    "context": [case(f"1.5B Q4_K_M, real, at {p}", "1.5B", p, 16, peers=False) for p in (512, 8192, 16384)],
    "threads": [case(f"1.5B Q4_K_M, real, {t} threads", "1.5B", 256, 24, t=t, peers=False) for t in (1, 2, 3, 8)],
    "busy": [case("1.5B Q4_K_M, real, one core busy", "1.5B", 256, 24, peers=False, busy=True)],
}


def machine():
    def read(path, key):
        try:
            lines = pathlib.Path(path).read_text().splitlines()
        except OSError:
            return ""
        return next((s.split(":", 1)[1].strip() for s in lines if s.startswith(key)), "")
    flags = read("/proc/cpuinfo", "flags").split()
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")
    kb = read("/proc/meminfo", "MemTotal").split()
    return {"processor": read("/proc/cpuinfo", "model name"), "family": read("/proc/cpuinfo", "cpu family"),
            "model": read("/proc/cpuinfo", "model\t"), "cores": os.cpu_count(), "flags": [f for f in wanted if f in flags],
            "memory_gb": round(int(kb[0]) / 1e6, 1) if kb else None}


def commit():
    """The last change of what is measured, with a + where src, app or include differ from it."""
    def git(*args):
        return subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True).stdout.strip()
    return (git("log", "-1", "--abbrev=8", "--format=%h", "--", "src", "app", "include") or "unknown") + ("+" if git("status", "--porcelain", "src", "app", "include") else "")


def models_folder():
    home = os.environ.get("HOLDFAST_HOME") or os.path.join(
        os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"), "holdfast")
    return pathlib.Path(os.environ.get("HOLDFAST_TEST_MODELS") or os.path.join(home, "models"))


def model_path(args, file):
    """The file of a case, made if it is one of random weights; None where it cannot be had."""
    if isinstance(file, str):
        path = models_folder() / REAL[file]
        return str(path) if path.exists() else None
    path = args.random / f"{file[0]}-{file[1]}.gguf"
    if not path.exists():
        args.random.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        made = subprocess.run([args.python, str(ROOT / "tools" / "random_gguf.py"), *file, str(part)])
        if made.returncode:
            return None
        part.rename(path)
    return str(path)


def wanted_cases(args):
    for name in args.suites or ["real", "types", "batch", "threads"]:
        avx2 = name.endswith("-avx2")
        for c in SUITES.get(name.removesuffix("-avx2")) or sys.exit(f"{name}: no such suite ({', '.join(SUITES)}; each also with -avx2)"):
            c = {**c, "suite": name}
            if avx2:
                c["kernels"] = "avx2"
            if not args.only or args.only in c["label"]:
                yield c


def load_record(path, now):
    if path.exists():
        return json.loads(path.read_text())
    return {"version": 1, "date": now, "commit": commit(), "machine": machine(), "rows": []}


def save(path, record):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


def row_of(record, c):
    """The row of this case in the record, made if it is new."""
    what = {k: c[k] for k in ("suite", "label", "p", "n", "t", "batch", "kernels")}
    for row in record["rows"]:
        if all(row[k] == v for k, v in what.items()):
            return row
    record["rows"].append({**what, "runs": {}})
    return record["rows"][-1]


def busy_core():
    return subprocess.Popen([sys.executable, "-c", "while True: pass"])


def busy_turn(c, program):
    other = busy_core() if c.get("busy") else None
    try:
        return program.measure(c)
    finally:
        if other:
            other.kill()
            other.wait()


def run_case(args, c, ours, others, record, path):
    """The rounds of a case that the record lacks. False where the time is over."""
    row = row_of(record, c)
    programs = ([ours] if ours else []) + (others if c["peers"] else [])
    if ours and "kv_bytes_per_token" not in row:
        row["kv_bytes_per_token"] = ours.kv_bytes(c)
    for i in range(args.rounds):
        for program in programs:
            done, failed = row["runs"].get(program.name, []), row.setdefault("failed", {})
            if len(done) > i or program.name in failed:
                continue
            begin = time.monotonic()
            if args.end and begin + (done[-1]["wall_s"] if done else 20) > args.end:
                return False
            try:
                r = busy_turn(c, program)
            except (RuntimeError, ValueError, OSError, subprocess.TimeoutExpired) as e:
                print(f"{c['label']}: {program.name}: {e}", flush=True)
                failed[program.name] = str(e)[-200:]
                continue
            r["wall_s"], r["load_before"] = round(time.monotonic() - begin, 1), round(os.getloadavg()[0], 2)
            row["runs"].setdefault(program.name, []).append(r)
            print(f"{c['label']:36} {c['kernels']:6} round {i + 1} {program.name:18} prefill {r['prefill_tps']:8.1f}  "
                  f"decode {r['decode_tps']:7.2f} tok/s  ({r['wall_s']} s)", flush=True)
            save(path, record)
    return True


def main():
    p = argparse.ArgumentParser(prog="bench/peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary", nargs="?", help="holdfast, or - to measure the peers alone")
    p.add_argument("suites", nargs="*")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--only", help="only cases whose label contains this")
    p.add_argument("--ik", type=pathlib.Path, help="folder of a build of ik_llama.cpp with llama-bench")
    p.add_argument("--ik-avx2", type=pathlib.Path, help="the same, built for AVX2 alone")
    p.add_argument("--llama", type=pathlib.Path, help="folder of a build of llama.cpp (default: built from the PyPI package)")
    p.add_argument("--llama-avx2", type=pathlib.Path, help="the same, built for AVX2 alone")
    p.add_argument("--npm", type=pathlib.Path, help="folder with node_modules/node-llama-cpp (default: installed into --cache)")
    p.add_argument("--without-npm", action="store_true")
    p.add_argument("--without-peers", action="store_true")
    p.add_argument("--cache", type=pathlib.Path, default=ROOT / "build" / "peers")
    p.add_argument("--random", type=pathlib.Path, help="folder of the files with random weights (default: in --cache)")
    p.add_argument("--python", default=sys.executable, help="a Python with numpy")
    p.add_argument("--under", default="", help='what each measured program runs under, e.g. "taskset -c 0,1"')
    p.add_argument("--seconds", type=float, help="stop before this time is over; the next call goes on from there")
    p.add_argument("--out", type=pathlib.Path)
    p.add_argument("--report", action="store_true")
    args = p.parse_args()
    args.end = time.monotonic() + args.seconds if args.seconds else None
    if args.report:
        return report.write(RESULTS)
    if not args.binary:
        p.error("the program to measure is missing (or --report)")
    args.cache = args.cache.resolve()
    args.random = (args.random or args.cache / "random").resolve()
    under = shlex.split(args.under)
    cases = list(wanted_cases(args))
    args.avx2 = any(c["kernels"] == "avx2" and c["peers"] for c in cases)
    found, absent = ({"native": [], "avx2": []}, []) if args.without_peers else engines.peers(args, under)
    for line in absent:
        print(f"without a peer: {line}")
    ours = None if args.binary == "-" else engines.Holdfast(args.binary, under)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ")
    path = args.out or RESULTS / f"peers-{now[:10]}-{commit().rstrip('+')}.json"
    record = load_record(path, now)
    for c in cases:
        c["path"] = model_path(args, c["file"])
        if not c["path"]:
            print(f"{c['label']}: skipped, the file is not here (holdfast pull; numpy for random weights)")
            continue
        if not run_case(args, c, ours, found["avx2" if c["kernels"] == "avx2" else "native"], record, path):
            print("the time is over; the next call goes on here")
            break
    print(report.tables(record))
    print(f"recorded: {path}")
    if not args.out:
        report.write(RESULTS)


if __name__ == "__main__":
    main()
