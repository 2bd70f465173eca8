#!/usr/bin/env python3
"""50 conversations of several turns at once (bench/load/kv_trace.py, with a tiny random model): the KV blocks in use at
the peak are at most 1/1.6 of what one contiguous slot per running conversation, as long as the longest, would take.

Usage: test_kv_trace.py [HOLDFAST]   (or HOLDFAST_BIN)
"""
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.environ["HOLDFAST_BIN"])
MODEL = os.path.join(ROOT, "tests/golden/models/qwen2-untied.gguf")
CONVERSATIONS = 50


def main():
    run = subprocess.run([sys.executable, os.path.join(ROOT, "bench/load/kv_trace.py"), BINARY, MODEL, "--conversations",
                          str(CONVERSATIONS)], capture_output=True, text=True, timeout=200, check=False)
    last = (run.stdout.strip().splitlines() or [""])[-1]
    print(last or run.stderr[-2000:])
    if run.returncode == 77:
        return 77
    figures = json.loads(last) if last.startswith("{") else {}
    # Of few that run at once the figure would say little.
    passed = run.returncode == 0 and figures["conversations"] == CONVERSATIONS and figures["running_at_peak"] >= CONVERSATIONS / 2
    print(f"{int(passed)} passed, {int(not passed)} failed")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
