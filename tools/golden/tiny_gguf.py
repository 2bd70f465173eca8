"""Writes the tiny models as GGUF with llama.cpp's conventions.

- llama: rows of Q and K permuted from rotate-half order to adjacent pairs, `rope_freqs.weight` carries
  the llama3 factors.
- deepseek2: either `attn_kv_b` alone with as many KV heads as heads (older files) or `attn_k_b` and
  `attn_v_b` with one KV head (newer files); rotary rows stay in adjacent pairs.
- qwen2: as in the checkpoint, biases on Q, K and V.
"""
import math

import numpy as np
import torch
from gguf import GGMLQuantizationType as T
from gguf import ExpertGatingFuncType, GGUFWriter, RopeScalingType

import kquant
import tiny_tokenizer
from gguf import quants

ARCH = {"qwen2": "qwen2", "llama": "llama", "deepseek_v3": "deepseek2"}
K_QUANT = {T.Q4_K: kquant.q4_k, T.Q5_K: kquant.q5_k, T.Q6_K: kquant.q6_k}


def permute_rope(w, n_head):
    """Rotate-half row order → adjacent pairs, per head."""
    hd = w.shape[0] // n_head
    return w.reshape(n_head, 2, hd // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def llama3_factors(cfg):
    """What each rotary frequency is divided by."""
    s, hd = cfg["rope_scaling"], cfg["hidden_size"] // cfg["num_attention_heads"]
    out = []
    for i in range(0, hd, 2):
        wavelen = 2 * math.pi * cfg["rope_theta"] ** (i / hd)
        old = s["original_max_position_embeddings"]
        if wavelen < old / s["high_freq_factor"]:
            out.append(1.0)
        elif wavelen > old / s["low_freq_factor"]:
            out.append(s["factor"])
        else:
            smooth = (old / wavelen - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
            out.append(1 / ((1 - smooth) / s["factor"] + smooth))
    return np.array(out, np.float32)


def _common_keys(w, cfg):
    w.add_name("tiny random " + cfg["model_type"])
    w.add_context_length(cfg["max_position_embeddings"])
    w.add_embedding_length(cfg["hidden_size"])
    w.add_block_count(cfg["num_hidden_layers"] + cfg.get("num_nextn_predict_layers", 0))
    w.add_feed_forward_length(cfg["intermediate_size"])
    w.add_head_count(cfg["num_attention_heads"])
    w.add_layer_norm_rms_eps(cfg["rms_norm_eps"])
    w.add_rope_freq_base(cfg.get("rope_theta") or cfg["rope_parameters"]["rope_theta"])
    w.add_vocab_size(cfg["vocab_size"])


def _deepseek_keys(w, cfg, absorbed, groups):
    nope, rope, lora = cfg["qk_nope_head_dim"], cfg["qk_rope_head_dim"], cfg["kv_lora_rank"]
    if cfg["num_nextn_predict_layers"]:
        w.add_nextn_predict_layers(cfg["num_nextn_predict_layers"])
    w.add_leading_dense_block_count(cfg["first_k_dense_replace"])
    w.add_q_lora_rank(cfg["q_lora_rank"])
    w.add_kv_lora_rank(lora)
    if absorbed:
        w.add_head_count_kv(1)
        w.add_key_length(lora + rope)
        w.add_value_length(lora)
        w.add_key_length_mla(nope + rope)
        w.add_value_length_mla(cfg["v_head_dim"])
    else:
        w.add_head_count_kv(cfg["num_attention_heads"])
        w.add_key_length(nope + rope)
        w.add_value_length(cfg["v_head_dim"])
    w.add_expert_count(cfg["n_routed_experts"])
    w.add_expert_used_count(cfg["num_experts_per_tok"])
    w.add_expert_shared_count(cfg["n_shared_experts"])
    w.add_expert_feed_forward_length(cfg["moe_intermediate_size"])
    w.add_expert_weights_scale(cfg["routed_scaling_factor"])
    w.add_expert_weights_norm(cfg["norm_topk_prob"])
    w.add_expert_gating_func(ExpertGatingFuncType.SIGMOID)
    if groups:
        w.add_expert_group_count(cfg["n_group"])
        w.add_expert_group_used_count(cfg["topk_group"])
    s = cfg["rope_scaling"]
    w.add_rope_dimension_count(rope)
    w.add_rope_scaling_type(RopeScalingType.YARN)
    w.add_rope_scaling_factor(s["factor"])
    w.add_rope_scaling_orig_ctx_len(s["original_max_position_embeddings"])
    w.add_rope_scaling_yarn_log_mul(0.1 * s["mscale_all_dim"])


NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_kv_b", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp", "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
    "eh_proj": "nextn.eh_proj", "enorm": "nextn.enorm", "hnorm": "nextn.hnorm",
    "shared_head.norm": "nextn.shared_head_norm",
}


def _layer_tensors(out, cfg, state, n, absorbed):
    pre = f"model.layers.{n}."
    for name, value in state.items():
        if not name.startswith(pre) or ".experts." in name:
            continue
        if name.endswith("e_score_correction_bias"):
            out[f"blk.{n}.exp_probs_b.bias"] = value
            continue
        part, kind = name[len(pre):].rsplit(".", 1)
        if part in ("embed_tokens", "shared_head.head"):  # copies of the model's own
            continue
        short = NAMES[part]
        if cfg["model_type"] == "llama" and short in ("attn_q", "attn_k"):
            heads = cfg["num_attention_heads" if short == "attn_q" else "num_key_value_heads"]
            value = permute_rope(value, heads)
        if short == "attn_kv_b" and absorbed:
            nope, v = cfg["qk_nope_head_dim"], cfg["v_head_dim"]
            b = value.reshape(cfg["num_attention_heads"], nope + v, cfg["kv_lora_rank"])
            out[f"blk.{n}.attn_k_b.weight"] = b[:, :nope].swapaxes(1, 2)
            out[f"blk.{n}.attn_v_b.weight"] = b[:, nope:]
            continue
        out[f"blk.{n}.{short}.{kind}"] = value
    if cfg["model_type"] == "deepseek_v3" and n >= cfg["first_k_dense_replace"]:
        for kind in ("gate", "up", "down"):
            out[f"blk.{n}.ffn_{kind}_exps.weight"] = np.stack(
                [state[f"{pre}mlp.experts.{e}.{kind}_proj.weight"] for e in range(cfg["n_routed_experts"])])


def tensors(cfg, state, absorbed=False):
    """GGUF name → float32 array, in llama.cpp's layout."""
    out = {"token_embd.weight": state["model.embed_tokens.weight"]}
    for n in range(cfg["num_hidden_layers"] + cfg.get("num_nextn_predict_layers", 0)):
        _layer_tensors(out, cfg, state, n, absorbed)
    out["output_norm.weight"] = state["model.norm.weight"]
    if "lm_head.weight" in state:
        out["output.weight"] = state["lm_head.weight"]
    if cfg["model_type"] == "llama":
        out["rope_freqs.weight"] = llama3_factors(cfg)
    return out


def _add(w, name, value, kind):
    value = np.ascontiguousarray(value, np.float32)
    # Vectors, the router and its bias stay in F32 in every real file.
    if value.ndim == 1 or kind == T.F32 or "ffn_gate_inp" in name:
        w.add_tensor(name, value)
    elif kind == T.F16:
        w.add_tensor(name, value.astype(np.float16))
    elif kind in K_QUANT:
        w.add_tensor(name, kquant.quantize_rows(value, K_QUANT[kind]), raw_dtype=kind)
    else:
        w.add_tensor(name, quants.quantize(value, kind), raw_dtype=kind)


def write(path, cfg, state, tok, kind=T.F32, absorbed=False, groups=True, kinds=None):
    """`kinds(name)` chooses a type per tensor; else all matrices are `kind`."""
    family = cfg["model_type"]
    w = GGUFWriter(str(path), ARCH[family])
    _common_keys(w, cfg)
    if family == "deepseek_v3":
        _deepseek_keys(w, cfg, absorbed, groups)
    else:
        w.add_head_count_kv(cfg["num_key_value_heads"])
        if family == "llama":
            w.add_rope_dimension_count(cfg["hidden_size"] // cfg["num_attention_heads"])
    tiny_tokenizer.add_to_gguf(w, tok, family)
    for name, value in tensors(cfg, state, absorbed).items():
        _add(w, name, value, kinds(name) if kinds else kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def dequantised(cfg, state, kinds):
    """The state as a file with types `kinds` holds it: quantised and decoded by the gguf package."""
    out, names = {}, tensors(cfg, state)
    back = {}
    for hf in state:
        back[_gguf_name(hf)] = hf
    for name, value in names.items():
        kind = kinds(name)
        if value.ndim > 1 and kind not in (T.F32, T.F16):
            raw = (kquant.quantize_rows(value, K_QUANT[kind]) if kind in K_QUANT
                   else quants.quantize(np.ascontiguousarray(value), kind))
            decoded = quants.dequantize(raw, kind)
            error = np.abs(decoded - value).max() / np.abs(value).max()
            assert error < {T.Q4_K: .08, T.Q4_0: .13, T.Q5_0: .05, T.Q5_K: .05}.get(kind, .03), (name, kind, error)
            value = decoded
        out[back[name]] = value
    return out


def _gguf_name(hf):
    fixed = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
             "lm_head.weight": "output.weight"}
    if hf in fixed:
        return fixed[hf]
    _, _, n, rest = hf.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{n}.{NAMES[part]}.{kind}"


def round_to(state, dtype):
    """Weights rounded so that `dtype` holds them exactly; the router's bias stays F32."""
    return {k: v if "e_score" in k else torch.from_numpy(v).to(dtype).float().numpy() for k, v in state.items()}
