#!/usr/bin/env python3
"""Writes src/tensor/codebooks.c: the code books of the GGUF block formats, as figures.

Source: the PyPI package `gguf` (MIT), which packs the tables of ggml's ggml-common.h (MIT, "The
ggml authors"). They are constants of the format: a file cannot be decoded without them.

    pip install -r tools/golden/requirements.txt && python3 tools/make_codebooks.py > src/tensor/codebooks.c
"""
import numpy as np
from gguf import quants

GRIDS = [  # name, class, C type, elements of an entry, what an element is
    ("iq2_xxs", quants.IQ2_XXS, "uint64_t", "8 magnitudes"),
    ("iq2_xs", quants.IQ2_XS, "uint64_t", "8 magnitudes"),
    ("iq2_s", quants.IQ2_S, "uint64_t", "8 magnitudes"),
    ("iq3_xxs", quants.IQ3_XXS, "uint32_t", "4 magnitudes"),
    ("iq3_s", quants.IQ3_S, "uint32_t", "4 magnitudes"),
    ("iq1", quants.IQ1_S, "uint64_t", "8 values, -1, 0 or 1, plus 1"),
]


def table(c_type, name, values, digits, per_line):
    print(f"\nconst {c_type} hd_tensor_{name}[{len(values)}] = {{")
    for i in range(0, len(values), per_line):
        print("    " + " ".join(f"0x{int(v):0{digits}x}," for v in values[i:i + per_line]))
    print("};")


def main():
    print("/* Code books of the GGUF block formats, made by tools/make_codebooks.py from the gguf package\n"
          " * (MIT; tables of ggml's ggml-common.h, MIT): constants of the format, never edited by hand.\n"
          " * The first element of an entry is in its lowest byte. */\n"
          "#include \"tensor/codebooks.h\"\n\n// clang-format off")
    for name, cls, c_type, what in GRIDS:
        cls.init_grid()
        grid = cls.grid.reshape(cls.grid_shape).astype(np.int64) + (1 if name == "iq1" else 0)
        assert grid.min() >= 0 and grid.max() < 64
        entries = [sum(int(v) << 8 * i for i, v in enumerate(row)) for row in grid]
        width = 8 * grid.shape[1]
        print(f"\n/* {len(entries)} entries of {what} */", end="")
        table(c_type, name + "_grid", entries, width // 4, 5 if width == 64 else 8)
    print("\n/* Seven signs to eight: the last makes their number even. */", end="")
    table("uint8_t", "even_signs", quants.IQ2_XXS.ksigns, 2, 16)
    print("\n/* A byte of signs to a mask of eight bytes. */", end="")
    table("uint64_t", "sign_masks",
          [sum(0xFF << 8 * i for i in range(8) if s >> i & 1) for s in range(256)], 16, 5)
    for name, cls in (("iq4", quants.IQ4_NL), ("mxfp4", quants.MXFP4)):
        values = ", ".join(str(v) for v in cls.kvalues)
        print(f"\nconst int8_t hd_tensor_{name}_values[16] = {{\n    {values}}};")


main()
