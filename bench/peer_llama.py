#!/usr/bin/env python3
"""holdfast bench beside llama.cpp: same file, same machine, turn by turn in one run.

    bench/peer_llama.py PATH/TO/holdfast MODEL.gguf [-p 512] [-n 64] [-t 2] [--rounds 3] [--python PYTHON] [--out FILE]

What it does: `rounds` times, one after another, `holdfast bench` and each form of llama.cpp that can be had here;
every program makes a warm-up pass and then the measured one. Turns spread what else the machine is doing over all
of them; the table shows each program's best round (least disturbed) and the ratio of ours to the faster peer.

Peers:
- node: the prebuilt library of the npm package node-llama-cpp, which chooses the kernels for this processor at run
  time. Brought by `npm install` into --cache (default build/peer) when it is not there; needs node and npm. Its
  binding adds a little to every generated token.
- python: llama-cpp-python, if PYTHON (default: the running one) can import it: a bare loop over llama_decode, built
  from source for this processor. The fairer peer for decoding. `pip install llama-cpp-python` compiles it.

Both sides: prompt ids without meaning, prefill includes the last row's logits, decode continues right after the
prompt, KV of llama.cpp in its default F16. The result is written as JSON to bench/results/ with processor, threads and
every round's figures. Compare runs of one machine only. Standard library only.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
NODE_PACKAGE = "node-llama-cpp@3.22.1"


def processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor(), []
    name = next((s.split(":", 1)[1].strip() for s in lines if s.startswith("model name")), platform.machine())
    flags = next((s.split(":", 1)[1].split() for s in lines if s.startswith("flags")), [])
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")
    return name, [f for f in wanted if f in flags]


def run_json(cmd, **kwargs):
    """The last line of a command's output, which is JSON; raises with its error otherwise."""
    run = subprocess.run(cmd, capture_output=True, text=True, timeout=1800, **kwargs)
    if run.returncode:
        raise RuntimeError(f"{cmd[0]} exited {run.returncode}: {(run.stderr or run.stdout).strip()[-300:]}")
    return json.loads(run.stdout[run.stdout.index("{"):] if run.stdout.strip().startswith("{") else run.stdout.strip().splitlines()[-1])


def node_peer(cache):
    """Command for the node form, or a sentence why there is none."""
    if not shutil.which("node") or not shutil.which("npm"):
        return None, "node and npm are not installed"
    if not (cache / "node_modules" / "node-llama-cpp").is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        print(f"npm install {NODE_PACKAGE} (once, into {cache})", flush=True)
        (cache / "package.json").write_text('{"private": true}\n')
        install = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent", NODE_PACKAGE], cwd=cache,
                                 capture_output=True, text=True)
        if install.returncode:
            return None, "npm install failed: " + install.stderr.strip()[-200:]
    script = cache / "peer_llama.mjs"
    shutil.copy(HERE / "peer_llama.mjs", script)
    return ["node", str(script)], None


def python_peer(python):
    probe = subprocess.run([python, "-c", "import llama_cpp; print(llama_cpp.__version__)"], capture_output=True, text=True)
    if probe.returncode:
        return None, f"{python} has no llama_cpp (pip install llama-cpp-python)"
    return [python, str(HERE / "peer_llama_loop.py")], None


def best(rounds, key):
    return max((r[key] for r in rounds), default=0.0)


def table(results, args, cpu):
    peers = [n for n in results if n != "holdfast" and results[n]]
    print(f"\n{pathlib.Path(args.model).name} · {cpu} · {args.t} threads · {args.p} prompt, {args.n} generated · best of {args.rounds}")
    print(f"{'':18} {'prefill tok/s':>14} {'decode tok/s':>14}")
    for name, rounds in results.items():
        if rounds:
            print(f"{name:18} {best(rounds, 'prefill_tps'):14.1f} {best(rounds, 'decode_tps'):14.2f}")
    ratios = {}
    if peers and results.get("holdfast"):
        for key in ("prefill_tps", "decode_tps"):
            ratios[key] = best(results["holdfast"], key) / max(best(results[p], key) for p in peers)
        print(f"{'ratio to faster':18} {ratios['prefill_tps']:14.2f} {ratios['decode_tps']:14.2f}")
    return ratios


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("binary", help="holdfast, or - to measure the peers alone")
    p.add_argument("model")
    p.add_argument("-p", type=int, default=512)
    p.add_argument("-n", type=int, default=64)
    p.add_argument("-t", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--kernels", default="auto")
    p.add_argument("--python", default=sys.executable)
    p.add_argument("--cache", type=pathlib.Path, default=HERE.parent / "build" / "peer")
    p.add_argument("--out", type=pathlib.Path)
    args = p.parse_args()
    args.model = str(pathlib.Path(args.model).resolve())
    sizes = [str(args.p), str(args.n), str(args.t)]
    commands = {}
    if args.binary != "-":
        commands["holdfast"] = [args.binary, "bench", "-m", args.model, "-p", sizes[0], "-n", sizes[1], "-t", sizes[2],
                                "--kernels", args.kernels, "--json"]
    for name, (cmd, why) in (("llama.cpp node", node_peer(args.cache.resolve())), ("llama.cpp python", python_peer(args.python))):
        if cmd:
            commands[name] = [*cmd, args.model, *sizes]
        else:
            print(f"without {name}: {why}")
    if len(commands) < 2 and args.binary != "-":
        sys.exit("no peer to compare with")
    results = {name: [] for name in commands}
    start_load = os.getloadavg()[0]
    if start_load > 0.5:
        print(f"the machine is busy (load {start_load:.1f} in the last minute): if it still is, waiting threads spin, figures are far too low and ratios mean little")
    for i in range(args.rounds):
        for name, cmd in commands.items():
            load = os.getloadavg()[0]
            try:
                r = run_json(cmd, cwd=args.cache if cmd[0] == "node" else None)
            except (RuntimeError, ValueError, IndexError, OSError) as e:
                sys.exit(f"{name}: {e}")
            r["load_before"] = round(load, 2)
            results[name].append(r)
            print(f"round {i + 1} {name:18} prefill {r['prefill_tps']:8.1f}  decode {r['decode_tps']:7.2f} tok/s  (load {load:.1f})", flush=True)
    cpu, flags = processor()
    ratios = table(results, args, cpu)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ")
    out = args.out or HERE / "results" / f"peer-{pathlib.Path(args.model).stem}-{now[:10]}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    record = {"date": now, "model": pathlib.Path(args.model).name, "processor": cpu, "flags": flags, "threads": args.t, "load_at_start": round(start_load, 2),
              "prompt": args.p, "generated": args.n, "ratio_to_faster_peer": ratios, "rounds": results}
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {out}")


if __name__ == "__main__":
    main()
