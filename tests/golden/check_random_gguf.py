#!/usr/bin/env python3
"""Files of tools/random_gguf.py can be read and computed: tests/golden/check_random_gguf.py PATH/TO/holdfast

The two tiny shapes in each type: `holdfast inspect` finds the type, and the likeliest token's log-probability with
the kernels in use is near that with `ref` and within what random weights of unit size give. Needs numpy.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "random_gguf.py"
TYPES = ["q4_0", "q4_k", "q5_0", "q6_k", "q8_0"]


def ask(*args):
    run = subprocess.run([sys.argv[1], *map(str, args)], capture_output=True, text=True, timeout=100)
    if run.returncode:
        sys.exit(f"{args[0]}: exit {run.returncode}: {run.stderr.strip()}")
    return json.loads(run.stdout)


def main():
    try:
        import numpy  # noqa: F401
    except ImportError:
        print("numpy is not installed (pip install numpy)")
        return 77
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for shape in ("tiny", "tiny-moe"):
            for kind in TYPES:
                path = pathlib.Path(folder) / f"{shape}-{kind}.gguf"
                subprocess.run([sys.executable, str(TOOL), shape, kind, str(path)], check=True)
                types = ask("inspect", path, "--json")["types"]
                best = [ask("logits", "-m", path, "--kernels", k, "--tokens", "5,6,7,300", "--top", 512)["rows"]["3"] for k in ("ref", "auto")]
                tables = [dict(map(tuple, rows)) for rows in best]
                worst = max(abs(tables[0][i] - tables[1][i]) for i in tables[0])
                ok = kind.upper() in types and worst < 0.3 and -8 < best[0][0][1] < -1
                passed, failed = passed + ok, failed + (not ok)
                print(f"{'ok   ' if ok else 'FAIL '} {shape} {kind}: likeliest {best[0][0]}, largest difference of kernels {worst:.3f}")
                path.unlink()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
