#!/usr/bin/env python3
"""Tiny random models of every quantised type against their F32 twins.

    tests/golden/check_types.py PATH/TO/holdfast [TYPE…]

A Qwen2 model (metadata and shapes of models/qwen2-wide.gguf) gets random blocks of one type in all its matrices; the
`gguf` package decodes it into an F32 twin. `holdfast logits --kernels ref` on both: largest difference of
log-probabilities at most 1e-3. The vector kernels on the quantised file: mean KL divergence to ref at most 2e-3.
Needs the gguf package (pip install gguf); without it nothing can be compared.
"""
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import table_rows

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tools/golden"))
TOKENS = [(37 * i + i * i) % 256 for i in range(24)]
# Byte offsets of f16 fields, and how far a minimum is below zero in scales; IQ1_M and MXFP4 keep theirs otherwise.
HALVES = {"Q4_0": {0: 1}, "Q4_1": {0: 1, 2: -7.5}, "Q5_0": {0: 1}, "Q5_1": {0: 1, 2: -15.5}, "Q8_0": {0: 1},
          "Q2_K": {80: 1, 82: 1.5}, "Q3_K": {108: 1}, "Q4_K": {0: 1, 2: 7.5}, "Q5_K": {0: 1, 2: 15.5}, "Q6_K": {208: 1},
          "IQ1_S": {0: 1}, "IQ1_M": {}, "IQ2_XXS": {0: 1}, "IQ2_XS": {0: 1}, "IQ2_S": {0: 1}, "IQ3_XXS": {0: 1},
          "IQ3_S": {0: 1}, "IQ4_NL": {0: 1}, "IQ4_XS": {0: 1}, "MXFP4": {}}


def random_blocks(rng, kind, n):
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    data = rng.integers(0, 256, (n // block, size), dtype=np.uint8)
    d = rng.uniform(0.001, 0.005, n // block)
    for at, times in HALVES[kind].items():
        data[:, at:at + 2] = (d * times).astype("<f2").view(np.uint8).reshape(-1, 2)
    if kind == "MXFP4":
        data[:, 0] = rng.integers(118, 122, n // block)
    if kind == "IQ1_M":
        bits = d.astype("<f2").view("<u2")
        for i in range(4):
            data[:, 49 + 2 * i] = data[:, 49 + 2 * i] & 15 | (bits >> 4 * i & 15) << 4
    return data


def write_model(path, kind):
    """Norms bring what the matrices make back to about one, so that the model behaves like a model."""
    rng = np.random.default_rng(len(kind) + ord(kind[-1]))
    quant = gguf.GGMLQuantizationType[kind]
    reader = gguf.GGUFReader(HERE / "models/qwen2-wide.gguf")
    writer = f32_twin.copy_metadata(reader, path)
    rms = float(np.sqrt((gguf.dequantize(random_blocks(rng, kind, 4096), quant).astype(np.float64) ** 2).mean()))
    for t in reader.tensors:
        shape = [int(n) for n in reversed(t.shape)]
        if len(shape) == 1:
            mean = 0 if "bias" in t.name else 1 / (rms * 16)
            writer.add_tensor(t.name, (mean + 0.1 * (mean or 1) * rng.standard_normal(shape)).astype(np.float32))
        else:
            data = random_blocks(rng, kind, int(np.prod(shape)))
            writer.add_tensor(t.name, data.reshape(*shape[:-1], -1), raw_dtype=quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(binary, model, kernels):
    cmd = [binary, "logits", "-m", model, "--kernels", kernels, "--tokens", ",".join(map(str, TOKENS)), "--at",
           ",".join(map(str, range(len(TOKENS)))), "--top", "320", "--json"]
    run = subprocess.run(list(map(str, cmd)), capture_output=True, text=True, timeout=120)
    if run.returncode:
        raise ValueError(f"{kernels}: exit {run.returncode}: {run.stderr.strip()}")
    rows = json.loads(run.stdout)["rows"]
    return [dict(rows[str(i)]) for i in range(len(TOKENS))]


def check(binary, kind, folder):
    model, twin = folder / "q.gguf", folder / "f32.gguf"
    write_model(model, kind)
    f32_twin.write(model, twin)
    ref, want, fast = logits(binary, model, "ref"), logits(binary, twin, "ref"), logits(binary, model, "auto")
    difference = max(abs(a[i] - b[i]) for a, b in zip(ref, want) for i in b)
    kl = sum(math.exp(a[i]) * (a[i] - b[i]) for a, b in zip(ref, fast) for i in a) / len(ref)
    table_rows.add(f"GGUF {kind}", "qwen2", "tiny random model, log-probabilities: its twin, decoded to F32 by the gguf "
                   f"package, {len(TOKENS)} positions, kernels ref", difference, 1e-3)
    table_rows.add(f"GGUF {kind}", "qwen2", f"tiny random model, mean KL over {len(TOKENS)} positions: the default kernels "
                   "against ref", kl, 2e-3)
    return difference, kl


def main():
    binary, kinds = sys.argv[1], sys.argv[2:] or HALVES
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            try:
                difference, kl = check(binary, kind, pathlib.Path(folder))
                ok = difference <= 1e-3 and kl <= 2e-3
                print(f"{kind:8} from its F32 twin {difference:.1e}, KL of the default kernels {kl:.1e}"
                      f"{'' if ok else '  FAIL'}")
            except (ValueError, KeyError, OSError, subprocess.TimeoutExpired) as e:
                ok = False
                print(f"{kind:8} FAIL {e}")
            failed += not ok
    print(f"{len(kinds) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    try:
        import gguf
        import numpy as np

        import f32_twin
    except ImportError as e:
        print(f"skipped: needs the gguf package to decode with ({e})")
        sys.exit(77)
    sys.exit(main())
