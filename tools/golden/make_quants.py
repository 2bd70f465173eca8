#!/usr/bin/env python3
"""Golden blocks of every quantised type that Holdfast reads: tests/golden/quants/<TYPE>.bin.

The decoder of the `gguf` package (MIT) is the reference. A file holds: u32 number of elements,
u32 number of block bytes, the blocks, the elements as F32. The blocks are random bytes whose f16
fields are finite (sign, denormals and all). Q8_0-quantised.bin holds F32 first, then the blocks
that the package's quantiser makes of them.

    pip install -r tools/golden/requirements.txt && python3 tools/golden/make_quants.py
"""
import pathlib
import struct

import numpy as np
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/quants"
# Byte offsets of the f16 fields in a block.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20)
    for name, halves in HALVES.items():
        block, size = GGML_QUANT_SIZES[Type[name]]
        n_block = 1024 // block
        data = rng.integers(0, 256, (n_block, size), dtype=np.uint8)
        for at in halves:
            h = data[:, at] | data[:, at + 1].astype(np.uint16) << 8
            h = np.where((h & 0x7C00) == 0x7C00, h & 0xBFFF, h).astype(np.uint16)
            data[:, at], data[:, at + 1] = h & 255, h >> 8
        write(name, data.tobytes(), quants.dequantize(data, Type[name]).astype("<f4"))
    write("BF16", b := rng.integers(0, 256, 2048, dtype=np.uint8).tobytes(),
          (np.frombuffer(b, "<u2").astype(np.uint32) << 16).view("<f4"))
    h = rng.integers(0, 65536, 1024, dtype=np.uint16)
    h = np.where((h & 0x7C00) == 0x7C00, h & 0x83FF | 0x7800, h).astype("<u2")
    write("F16", h.tobytes(), h.view("<f2").astype("<f4"))

    x = (rng.standard_normal((32, 32)) * 10.0 ** rng.integers(-6, 4, (32, 1))).astype("<f4")
    x[5] = 0
    blocks = quants.quantize(x, Type.Q8_0)
    (OUT / "Q8_0-quantised.bin").write_bytes(
        struct.pack("<II", x.size, blocks.size) + x.tobytes() + blocks.tobytes())


def write(name, blocks, values):
    head = struct.pack("<II", values.size, len(blocks))
    (OUT / f"{name}.bin").write_bytes(head + blocks + values.tobytes())


main()
