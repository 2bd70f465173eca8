#!/usr/bin/env python3
"""Golden blocks of every quantised type that Holdfast reads: tests/golden/quants/<TYPE>.bin.

The decoder of the `gguf` package (MIT) is the reference. A file holds: u32 number of elements,
u32 number of block bytes, the blocks, the elements as F32. The blocks are random bytes whose f16
fields are finite (sign, denormals and all). Q8_0-quantised.bin holds F32 first, then the blocks
that the package's quantiser makes of them. digests.txt goes through every entry of every code book:
type, seed of splitmix64, elements, SHA-256 of the elements; the blocks are the generator's numbers,
little-endian, with bit 14 of the f16 fields cleared.

    pip install -r tools/golden/requirements.txt && python3 tools/golden/make_quants.py
"""
import hashlib
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
LATER = {  # drawn last, so that the files above keep their bytes
    "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0], "IQ1_S": [0],
    "IQ4_NL": [0], "IQ4_XS": [0],
    "IQ1_M": [],  # a nibble in each of four u16; the uppermost is in byte 55
    "MXFP4": [],  # an exponent
}


def splitmix(seed, n):
    state = np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15) * np.arange(1, n + 1, dtype=np.uint64)
    z = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


def digest(name, halves, seed, n=1 << 18):
    block, size = GGML_QUANT_SIZES[Type[name]]
    data = splitmix(seed, n // block * size // 8).astype("<u8").view(np.uint8)
    data = data.reshape(-1, size).copy()
    for at in halves or ([54] if name == "IQ1_M" else []):
        data[:, at + 1] &= 0xBF
    values = quants.dequantize(data, Type[name]).astype("<f4")
    return f"{name} {seed} {n} {hashlib.sha256(values.tobytes()).hexdigest()}\n"


def random_blocks(name, halves, rng):
    block, size = GGML_QUANT_SIZES[Type[name]]
    n_block = 1024 // block
    data = rng.integers(0, 256, (n_block, size), dtype=np.uint8)
    for at in halves:
        h = data[:, at] | data[:, at + 1].astype(np.uint16) << 8
        h = np.where((h & 0x7C00) == 0x7C00, h & 0xBFFF, h).astype(np.uint16)
        data[:, at], data[:, at + 1] = h & 255, h >> 8
    if name == "IQ1_M":
        data[:, 55] &= 0xBF
    write(name, data.tobytes(), quants.dequantize(data, Type[name]).astype("<f4"))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20)
    for name, halves in HALVES.items():
        random_blocks(name, halves, rng)
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
    for name, halves in LATER.items():
        random_blocks(name, halves, rng)
    (OUT / "digests.txt").write_text("".join(
        digest(name, halves, seed)
        for seed, (name, halves) in enumerate((HALVES | LATER).items(), 100)))


def write(name, blocks, values):
    head = struct.pack("<II", values.size, len(blocks))
    (OUT / f"{name}.bin").write_bytes(head + blocks + values.tobytes())


main()
