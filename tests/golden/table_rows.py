"""Rows for the table of docs/models.md: what was compared with what, and the largest difference that was seen.

A check calls `add` once per comparison that it has made. With HOLDFAST_MODELS_TABLE set to a file, each call appends one
JSON line {"format", "architecture", "compared", "difference", "limit"} to it; without, nothing happens, so a check need
not know who runs it. tools/models_table.py sets the variable, runs the checks and writes the page. Rows that are alike
except for the difference become one row with the largest.

    table_rows.add("GGUF Q4_1", "llama (30 layers, 576)", "SmolLM2-135M, log-probabilities: transformers F32 on the "
                   "decoded file, 132 positions, kernels ref", 3.1e-5, 1e-3)

format        the file's form and element type: "GGUF Q4_1", "GGUF BF16, attn_k_b + attn_v_b", "safetensors FP8 128×128"
architecture  "qwen2", "llama", "deepseek-v3", "bert", "xlm-roberta"; "–" where only a type is compared
compared      model or data: quantity, the reference, how much of it, kernels
difference    a number, larger = worse; for a similarity (cosine) its distance from 1; for ids the count that differ
limit         what the check allows; a row whose difference is above it fails the table
"""
import json
import os


def add(format, architecture, compared, difference, limit):
    path = os.environ.get("HOLDFAST_MODELS_TABLE")
    if not path:
        return
    row = {"format": format, "architecture": architecture, "compared": compared,
           "difference": float(f"{difference:.3g}"), "limit": float(limit)}
    with open(path, "a") as f:
        f.write(json.dumps(row, ensure_ascii=False) + "\n")
