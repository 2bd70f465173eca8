#!/usr/bin/env python3
"""Checks that llama.cpp reads the tiny GGUF files as they are meant.

    pip install llama-cpp-python; python tools/golden/check_llama_cpp.py

The files are written by our own code, so an engine that others wrote must agree about names, layouts and
keys. llama.cpp computes products in lower precision, so its tolerance is loose; a wrong layout gives
differences above 1.
"""
import json
import pathlib

import numpy as np
from llama_cpp import Llama

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
TOLERANCE = {"qwen2-wide": 0.5}


def main():
    passed = failed = 0
    for path in sorted(ROOT.glob("logits/*.json")):
        ref = json.loads(path.read_text())
        for file in (f for f in ref["files"] if f.endswith(".gguf")):
            worst = 0.0
            for prompt in ref["prompts"]:
                model = Llama(str(ROOT / "models" / file), n_ctx=256, n_batch=256, n_threads=1, logits_all=True,
                              verbose=False, type_k=0, type_v=0)
                model.eval(prompt["tokens"])
                x = np.array(model.scores[:len(prompt["tokens"])], np.float64)
                lp = x - np.log(np.exp(x).sum(-1, keepdims=True))
                worst = max(worst, max(abs(lp[int(r), i] - v) for r, top in prompt["rows"].items() for i, v in top))
            ok = worst <= TOLERANCE.get(ref["name"], 0.3)
            passed, failed = passed + ok, failed + (not ok)
            print(f"{file:28} largest difference {worst:.2g}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
