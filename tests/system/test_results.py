#!/usr/bin/env python3
"""bench/results/README.md and its plots are what the records beside it say: test_results.py [PATH/TO/holdfast]

Also what the tables do with rows that are incomplete: peers that failed, a program without a probe, no peer at all.
"""
import pathlib
import shutil
import sys
import tempfile
import xml.dom.minidom

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench" / "peers"))
import report  # noqa: E402

passed = failed = 0


def check(ok, text):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    print(("ok    " if ok else "FAIL  ") + text)


def run(tps, **more):
    return {"prefill_tps": 2 * tps, "decode_tps": tps, **more}


def main():
    results = ROOT / "bench" / "results"
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "results"
        shutil.copytree(results, copy)
        report.write(copy)
        for name in ("README.md", "peers-ratio.svg", "peers-history.svg"):
            check((copy / name).read_text() == (results / name).read_text(), f"{name} is as `bench/peers --report` writes it")
        for name in ("peers-ratio.svg", "peers-history.svg"):
            check(xml.dom.minidom.parse(str(copy / name)).documentElement.tagName == "svg", f"{name} is a drawing")
    ours = [run(v, isa="avx512", weight_bytes_per_token=10**9, probe_read_gbps=50.0, probe_int8_tops=1.0, threads=2) for v in (30.0, 40.0, 50.0)]
    row = {"suite": "types", "label": "1.5B Q4_0", "p": 512, "n": 32, "t": 2, "batch": 1, "kernels": "auto", "kv_bytes_per_token": 10**8,
           "runs": {"holdfast": ours, "llama.cpp": [run(16.0)], "llama.cpp npm": [run(20.0)], "ik_llama.cpp": [run(25.0)]}}
    check(report.family(row, "decode_tps", False) == 20 and report.family(row, "decode_tps", True) == 25, "the best form of each peer counts")
    check(abs(report.share(row) - 40 * 1.1 / 50) < 1e-9, "weights and KV make the share of the bandwidth")
    check(report.prefill_targets(row) == (2.5, 1.5), "what is aimed at follows the kernels")
    bare = {**row, "label": "bare", "runs": {"holdfast": [run(1.0, isa="ref")]}, "failed": {"llama.cpp": "it crashed"}}
    batch = [{**row, "suite": "batch", "label": f"x, {b} at once", "batch": b, "runs": {"holdfast": [{**ours[0], "decode_tps": 30.0 * b / 2 + 15}]}} for b in (1, 8)]
    text = report.tables({"rows": [row, bare, *batch], "machine": {"processor": "test"}, "commit": "abc", "date": "2026-01-01"})
    check("2.00 ✗ (2.5)" in text and "1.60 ✓ (1.5)" in text and "0.88 ✗ (0.9)" in text, "ratios stand beside what is aimed at")
    check("bare: llama.cpp: it crashed" in text, "a peer that failed is named")
    check("4.50 ✓ (4)" in text, "several sequences beside one")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
