#!/usr/bin/env python3
"""How long a server takes from its process's start: until it is ready, until its first token (a prompt of 16 tokens),
until all weights are in memory; and what memory it holds then.

    bench/start.py [--runs 5] [--binary OTHER…] PATH/TO/holdfast MODEL.gguf [-- OPTIONS OF serve…]

The file is read once before, so that it lies in the page cache: warm starts. With --binary further programs are
measured in turn, run by run, against the same load of the machine. Standard library only.
"""
import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

PROMPT = "The quick brown fox jumps over the lazy dog and then runs away again, happy"


def get(port, path, body=None):
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def memory(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+) kB", f.read()).group(1)) / 1024


def wait_loaded(port):
    """False where the program does not tell (it was loaded before it was ready)."""
    while True:
        models = get(port, "/startupz")[1].get("models")
        if not models:
            return False
        if models[0]["loaded"]:
            return True
        time.sleep(0.005)


def one(binary, model, options, free_port):
    with tempfile.TemporaryDirectory() as home:
        start = time.monotonic()
        process = subprocess.Popen([binary, "serve", "--port", str(free_port), "--home", home, "-m", model, *options],
                                   stdout=subprocess.DEVNULL)
        out = {}
        try:
            while True:
                try:
                    if get(free_port, "/readyz")[0] == 200:
                        break
                except (urllib.error.URLError, ConnectionError):
                    pass
                assert process.poll() is None, "the server has ended"
                time.sleep(0.002)
            out["ready"] = time.monotonic() - start
            status, reply = get(free_port, "/v1/completions", {"prompt": PROMPT, "max_tokens": 1, "temperature": 0})
            assert status == 200, reply
            out["first token"] = time.monotonic() - start
            out["tokens"] = reply["usage"]["prompt_tokens"]
            told = wait_loaded(free_port)
            out["loaded"] = time.monotonic() - start if told else out["ready"]
            time.sleep(0.2)
            out["rss"] = memory(process.pid)
            with open(f"/proc/{process.pid}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            out["cpu"] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    return out


def port():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("holdfast")
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--binary", action="append", default=[])
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    binaries = [args.holdfast, *args.binary]
    results = {binary: [] for binary in binaries}
    with open(args.model, "rb") as f:
        while f.read(1 << 24):
            pass
    for _ in range(args.runs):
        for binary in binaries:
            results[binary].append(one(binary, args.model, args.options, port()))
    print(f"load of the machine: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores; median (least … most) of {args.runs}")
    for binary, runs in results.items():
        print(f"{binary}  {os.path.basename(args.model)}  {' '.join(args.options)}")
        for what in ("ready", "first token", "loaded", "cpu"):
            values = [r[what] for r in runs]
            print(f"  {what:<12} {statistics.median(values):6.2f} s  ({min(values):.2f} … {max(values):.2f})")
        print(f"  memory       {statistics.median(r['rss'] for r in runs):6.0f} MB  prompt of {runs[0]['tokens']} tokens")


if __name__ == "__main__":
    main()
