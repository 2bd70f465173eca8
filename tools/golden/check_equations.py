#!/usr/bin/env python3
"""Checks the DeepSeek-V3 references against the model's published equations, without transformers.

    python tools/golden/check_equations.py

A second, independent forward pass in numpy (float64), written from the equations of DeepSeek-V3's reference
implementation: multi-head latent attention in both its expanded and its absorbed form, adjacent-pair
rotation with YaRN and the softmax scale times mscale², sigmoid routing with two-best group sums, shared
expert. Reads the folder's BF16 weights and compares with tests/golden/logits/deepseek-v3.json.
"""
import json
import math
import pathlib

import numpy as np
import torch
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"


def rms(x, w, eps=1e-6):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def silu(x):
    return x / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def yarn(cfg):
    """(angle per position for each pair, softmax multiplier mscale²)."""
    s, dim, base = cfg["rope_scaling"], cfg["qk_rope_head_dim"], cfg["rope_theta"]
    freq = 1.0 / base ** (np.arange(0, dim, 2) / dim)

    def correction(rotations):
        return dim * math.log(s["original_max_position_embeddings"] / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = math.floor(correction(s["beta_fast"])), math.ceil(correction(s["beta_slow"]))
    low, high = max(low, 0), min(high, dim - 1)
    smooth = 1 - np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
    mscale = 0.1 * s["mscale_all_dim"] * math.log(s["factor"]) + 1
    return freq / s["factor"] * (1 - smooth) + freq * smooth, mscale * mscale


def rotate(x, freq):
    """x[..., position, dim]: adjacent pairs as complex numbers."""
    z = x[..., 0::2] + 1j * x[..., 1::2]
    z = z * np.exp(1j * np.arange(x.shape[-2])[:, None] * freq)
    out = np.empty_like(x)
    out[..., 0::2], out[..., 1::2] = z.real, z.imag
    return out


def attention(cfg, w, x, absorbed):
    n, h = x.shape[0], cfg["num_attention_heads"]
    nope, rope, v, lora = (cfg[k] for k in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank"))
    freq, mscale2 = yarn(cfg)
    q = (rms(x @ w["q_a_proj"].T, w["q_a_layernorm"]) @ w["q_b_proj"].T).reshape(n, h, nope + rope).swapaxes(0, 1)
    q_nope, q_pe = q[..., :nope], rotate(q[..., nope:], freq)
    kv = x @ w["kv_a_proj_with_mqa"].T
    c, k_pe = rms(kv[:, :lora], w["kv_a_layernorm"]), rotate(kv[:, lora:], freq)
    b = w["kv_b_proj"].reshape(h, nope + v, lora)
    if absorbed:
        score = (q_nope @ b[:, :nope]) @ c.T
    else:
        score = q_nope @ (c @ b[:, :nope].swapaxes(1, 2)).swapaxes(1, 2)
    score = (score + q_pe @ k_pe.T) * (nope + rope) ** -0.5 * mscale2
    p = softmax(np.where(np.tril(np.ones((n, n), bool)), score, -np.inf))
    out = (p @ c) @ b[:, nope:].swapaxes(1, 2) if absorbed else p @ (c @ b[:, nope:].swapaxes(1, 2))
    return out.swapaxes(0, 1).reshape(n, h * v) @ w["o_proj"].T


def mlp(w, p, x):
    return (silu(x @ w[p + "gate_proj"].T) * (x @ w[p + "up_proj"].T)) @ w[p + "down_proj"].T


def moe(cfg, w, x):
    out, chosen = mlp(w, "shared_experts.", x), []
    per = cfg["n_routed_experts"] // cfg["n_group"]
    for t, row in enumerate(x):
        s = 1 / (1 + np.exp(-(w["gate"] @ row)))
        c = s + w["gate.e_score_correction_bias"]
        group = np.sort(c.reshape(-1, per))[:, -2:].sum(1)
        keep = np.argsort(-group)[:cfg["topk_group"]]
        masked = np.where(np.isin(np.arange(len(c)) // per, keep), c, -np.inf)
        idx = np.argsort(-masked)[:cfg["num_experts_per_tok"]]
        weight = s[idx] / (s[idx].sum() + 1e-20) * cfg["routed_scaling_factor"]
        for e, k in zip(idx, weight):
            out[t] += k * mlp(w, f"experts.{e}.", row)
        chosen.append(sorted(idx.tolist()))
    return out, chosen


def forward(cfg, state, ids, absorbed):
    x, experts = state["model.embed_tokens.weight"][ids], {}
    for i in range(cfg["num_hidden_layers"]):
        p = f"model.layers.{i}."
        w = {k[len(p):].removesuffix(".weight"): v for k, v in state.items() if k.startswith(p)}
        att = {k.removeprefix("self_attn."): v for k, v in w.items() if k.startswith("self_attn.")}
        ffn = {k.removeprefix("mlp."): v for k, v in w.items() if k.startswith("mlp.")}
        x = x + attention(cfg, att, rms(x, w["input_layernorm"]), absorbed)
        h = rms(x, w["post_attention_layernorm"])
        if i < cfg["first_k_dense_replace"]:
            x = x + mlp(ffn, "", h)
        else:
            y, experts[str(i)] = moe(cfg, ffn, h)
            x = x + y
    logits = rms(x, state["model.norm.weight"]) @ state["lm_head.weight"].T
    return logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) - logits.max(-1, keepdims=True), experts


def main():
    folder = ROOT / "models" / "deepseek-v3"
    cfg = json.loads((folder / "config.json").read_text())
    state = {k: v.to(torch.float64).numpy() for k, v in load_file(folder / "model.safetensors").items()}
    ref = json.loads((ROOT / "logits" / "deepseek-v3.json").read_text())
    failed = passed = 0
    for prompt in ref["prompts"]:
        for absorbed in (False, True):
            lp, experts = forward(cfg, state, prompt["tokens"], absorbed)
            worst = max(abs(lp[int(r), i] - v) for r, top in prompt["rows"].items() for i, v in top)
            same = experts == prompt["experts"]
            ok = worst <= ref["tolerance"] and same
            passed, failed = passed + ok, failed + (not ok)
            form = "absorbed" if absorbed else "expanded"
            print(f"{len(prompt['tokens']):4} ids, {form}: largest difference {worst:.1e}, experts {'same' if same else 'DIFFER'}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
