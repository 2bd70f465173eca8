#!/usr/bin/env python3
"""Makes the tiny random models and their reference log-probabilities.

    python tools/golden/make_tiny.py [NAME…]

Needs tools/golden/requirements.txt. Writes tests/golden/models/ and tests/golden/logits/. The oracle is
Hugging Face transformers in float32 with eager attention, loading the very folder that is committed;
GGUF files hold the same weights (or, for a variant of its own, weights that the reference is run on
again). The run is deterministic: same packages, same bytes.

Each model is drawn so that a wrong rotation, scale, bias or routing rule moves the log-probabilities far
beyond the tolerance; `mutations` below measures that and refuses a model in which it does not.
"""
import json
import pathlib
import shutil
import sys

import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as T
from safetensors.torch import save_file

import tiny_gguf
import tiny_tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
TOP, TOLERANCE = 20, 1e-4
SHORT, LONG = 16, 150
ROUTING_GAP = 1e-3
ROWS_SHORT = [0, 1, 7, 15]
ROWS_LONG = [0, 31, 63, 64, 65, 100, 127, 128, 149]
N_VOCAB = 320

BASE = {"hidden_act": "silu", "attention_dropout": 0.0, "use_cache": True, "initializer_range": 0.02,
        "vocab_size": N_VOCAB, "hidden_size": 64, "num_hidden_layers": 3}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **BASE, "intermediate_size": 96,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
         "max_window_layers": 3, "sliding_window": 4096, "use_sliding_window": False, "rms_norm_eps": 1e-6,
         "bos_token_id": 317, "eos_token_id": 319}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **BASE, "intermediate_size": 96,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 131072,
         "attention_bias": False, "mlp_bias": False, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
         "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                          "original_max_position_embeddings": 128, "rope_type": "llama3"},
         "tie_word_embeddings": False, "bos_token_id": 315, "eos_token_id": 319}
DEEPSEEK = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", **BASE,
            "intermediate_size": 96, "moe_intermediate_size": 24, "num_attention_heads": 4,
            "num_key_value_heads": 4, "q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 32,
            "qk_rope_head_dim": 16, "v_head_dim": 24, "n_routed_experts": 8, "n_shared_experts": 1,
            "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2, "topk_method": "noaux_tc",
            "scoring_func": "sigmoid", "norm_topk_prob": True, "routed_scaling_factor": 2.5,
            "first_k_dense_replace": 1, "moe_layer_freq": 1, "ep_size": 1, "aux_loss_alpha": 0.001,
            "seq_aux": True, "num_nextn_predict_layers": 0, "attention_bias": False,
            "max_position_embeddings": 163840, "rms_norm_eps": 1e-6, "rope_theta": 10000,
            "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0,
                             "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096, "type": "yarn"},
            "tie_word_embeddings": False, "bos_token_id": 314, "eos_token_id": 315}


# ---- weights ---------------------------------------------------------------------------------------

class Draw:
    def __init__(self, seed):
        self.rng = np.random.Generator(np.random.PCG64(seed))

    def linear(self, n_out, n_in, gain=1.0):
        return (self.rng.standard_normal((n_out, n_in)) * gain / np.sqrt(n_in)).astype(np.float32)

    def norm(self, n):
        return (1 + 0.2 * self.rng.standard_normal(n)).astype(np.float32)

    def vector(self, n, std):
        return (std * self.rng.standard_normal(n)).astype(np.float32)


def attention(d, cfg, p, s):
    n, h = cfg["hidden_size"], cfg["num_attention_heads"]
    if cfg["model_type"] == "deepseek_v3":
        nope, rope, v, lora = (cfg[k] for k in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank"))
        s[p + "q_a_proj.weight"] = d.linear(cfg["q_lora_rank"], n)
        s[p + "q_a_layernorm.weight"] = d.norm(cfg["q_lora_rank"])
        s[p + "q_b_proj.weight"] = d.linear(h * (nope + rope), cfg["q_lora_rank"], 1.2)
        s[p + "kv_a_proj_with_mqa.weight"] = d.linear(lora + rope, n, 1.2)
        s[p + "kv_a_layernorm.weight"] = d.norm(lora)
        s[p + "kv_b_proj.weight"] = d.linear(h * (nope + v), lora)
        s[p + "o_proj.weight"] = d.linear(n, h * v)
        return
    hd, kv = n // h, cfg["num_key_value_heads"]
    for name, rows, gain in (("q", h * hd, 1.4), ("k", kv * hd, 1.4), ("v", kv * hd, 1.0)):
        s[p + name + "_proj.weight"] = d.linear(rows, n, gain)
        if cfg["model_type"] == "qwen2":
            s[p + name + "_proj.bias"] = d.vector(rows, 0.5)
    s[p + "o_proj.weight"] = d.linear(n, h * hd)


def mlp(d, p, s, n, ff):
    s[p + "gate_proj.weight"] = d.linear(ff, n, 1.5)
    s[p + "up_proj.weight"] = d.linear(ff, n, 1.2)
    s[p + "down_proj.weight"] = d.linear(n, ff)


def moe(d, cfg, p, s):
    n, e = cfg["hidden_size"], cfg["n_routed_experts"]
    s[p + "gate.weight"] = d.linear(e, n, 1.2)
    s[p + "gate.e_score_correction_bias"] = d.vector(e, 0.3)
    for i in range(e):
        mlp(d, f"{p}experts.{i}.", s, n, cfg["moe_intermediate_size"])
    mlp(d, p + "shared_experts.", s, n, cfg["moe_intermediate_size"] * cfg["n_shared_experts"])


def mtp_layer(d, cfg, p, s):
    n = cfg["hidden_size"]
    s[p + "enorm.weight"], s[p + "hnorm.weight"] = d.norm(n), d.norm(n)
    s[p + "eh_proj.weight"] = d.linear(n, 2 * n, 1.4)
    s[p + "input_layernorm.weight"] = d.norm(n)
    attention(d, cfg, p + "self_attn.", s)
    s[p + "post_attention_layernorm.weight"] = d.norm(n)
    moe(d, cfg, p + "mlp.", s)
    s[p + "shared_head.norm.weight"] = d.norm(n)


def weights(cfg, seed):
    """Checkpoint names → float32 arrays, [out, in] as in a checkpoint."""
    d, s, n = Draw(seed), {}, cfg["hidden_size"]
    s["model.embed_tokens.weight"] = d.linear(cfg["vocab_size"], n, 4.0)
    for i in range(cfg["num_hidden_layers"]):
        p = f"model.layers.{i}."
        s[p + "input_layernorm.weight"] = d.norm(n)
        attention(d, cfg, p + "self_attn.", s)
        s[p + "post_attention_layernorm.weight"] = d.norm(n)
        if cfg["model_type"] == "deepseek_v3" and i >= cfg["first_k_dense_replace"]:
            moe(d, cfg, p + "mlp.", s)
        else:
            mlp(d, p + "mlp.", s, n, cfg["intermediate_size"])
    if cfg.get("num_nextn_predict_layers"):
        mtp_layer(d, cfg, f"model.layers.{cfg['num_hidden_layers']}.", s)
    s["model.norm.weight"] = d.norm(n)
    if not cfg["tie_word_embeddings"]:
        s["lm_head.weight"] = d.linear(cfg["vocab_size"], n, 2.0)
    if cfg.get("num_nextn_predict_layers"):  # the released checkpoint stores both a second time
        p = f"model.layers.{cfg['num_hidden_layers']}."
        s[p + "embed_tokens.weight"] = s["model.embed_tokens.weight"].copy()
        s[p + "shared_head.head.weight"] = s["lm_head.weight"].copy()
    return s


# ---- folders ---------------------------------------------------------------------------------------

def save_folder(folder, cfg, state, tok, dtype=torch.float32, shards=1):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
    config = {**cfg, "torch_dtype": names[dtype]}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tensors = {k: torch.from_numpy(np.ascontiguousarray(v)).to(torch.float32 if "e_score" in k else dtype)
               for k, v in state.items()}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    else:
        keys, where = list(tensors), {}
        for i in range(shards):
            part = keys[i * len(keys) // shards:(i + 1) * len(keys) // shards]
            file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
            save_file({k: tensors[k] for k in part}, folder / file, {"format": "pt"})
            where.update({k: file for k in part})
        total = sum(t.numel() * t.element_size() for t in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=0) + "\n")
    tiny_tokenizer.save(tok, cfg["model_type"], folder)


# ---- reference -------------------------------------------------------------------------------------

def load(folder):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager",
        output_loading_info=True)
    bad = {k: v for k, v in info.items() if v}
    assert not bad, bad
    return model.eval()


def load_state(cfg, state):
    """A model that holds `state` exactly, through a temporary folder."""
    folder = pathlib.Path("/tmp") / "holdfast-golden-state"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**cfg, "torch_dtype": "float32"}))
    save_file({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in state.items()},
              folder / "model.safetensors", {"format": "pt"})
    model = load(folder)
    shutil.rmtree(folder)
    return model


def forward(model, ids):
    """(log-probabilities [n, vocab] float32, {layer: chosen experts per position}, smallest routing gap)."""
    experts, gaps, hooks = {}, [], []

    def hook(layer):
        def fn(module, args, out):
            experts[layer] = [sorted(row) for row in out[2].tolist()]
            gaps.append(routing_gap(module, out[0]))
        return fn

    for i, block in enumerate(model.model.layers):
        if hasattr(block.mlp, "gate"):
            hooks.append(block.mlp.gate.register_forward_hook(hook(i)))
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    for h in hooks:
        h.remove()
    return torch.log_softmax(logits, -1), experts, min(gaps, default=None)


def routing_gap(gate, logits):
    """How far the closest losing group or expert is from winning, over all positions."""
    c = logits.double().sigmoid() + gate.e_score_correction_bias.double()
    n = c.shape[0]
    group = c.view(n, gate.num_group, -1).topk(2, -1)[0].sum(-1).sort(-1, descending=True)
    gap = torch.inf
    if gate.topk_group < gate.num_group:
        gap = (group[0][:, gate.topk_group - 1] - group[0][:, gate.topk_group]).min().item()
    keep = torch.zeros_like(group[0]).scatter_(1, group[1][:, :gate.topk_group], 1).bool()
    c = c.view(n, gate.num_group, -1).masked_fill(~keep[..., None], -torch.inf).view(n, -1)
    top = c.topk(gate.top_k + 1, -1)[0]
    return min(gap, (top[:, -2] - top[:, -1]).min().item())


def reference(model, seed):
    rng = np.random.Generator(np.random.PCG64(seed + 1000))
    prompts = []
    for n, rows in ((SHORT, ROWS_SHORT), (LONG, ROWS_LONG)):
        for _ in range(200):  # a prompt on which no routing decision is close to a tie
            ids = rng.integers(0, N_VOCAB - 8, n).tolist()
            lp, experts, gap = forward(model, ids)
            if gap is None or gap > ROUTING_GAP:
                break
        assert gap is None or gap > ROUTING_GAP, gap
        exact = torch.log_softmax(model.double()(torch.tensor([ids]), use_cache=False).logits[0], -1).detach()
        model.float()
        noise = (lp.double() - exact)[rows].abs().max().item()
        assert noise < TOLERANCE / 5, noise
        out = {}
        for r in rows:
            v, i = lp[r].topk(TOP)
            out[str(r)] = [[int(a), round(float(b), 6)] for a, b in zip(i, v)]
        prompt = {"tokens": ids, "rows": out}
        if experts:
            prompt["experts"] = {str(k): v for k, v in experts.items()}
        prompts.append(prompt)
        entropy = -(lp.exp() * lp).sum(-1).mean().item()
        print(f"    {n} ids: entropy {entropy:.2f} of {np.log(N_VOCAB):.2f}, float32 noise {noise:.1e}"
              + (f", routing gap {gap:.1e}" if experts else ""))
    return prompts


ARCHITECTURES = {"qwen2": "qwen2", "llama": "llama", "deepseek_v3": "deepseek-v3"}  # docs/models.md's words


def write_reference(name, cfg, formats, prompts, note):
    """`formats`: file → its types and layout, as a row of docs/models.md says it."""
    rows = {"name": name, "architecture": ARCHITECTURES[cfg["model_type"]], "files": list(formats), "formats": formats,
            "note": note, "reference": f"transformers {transformers.__version__}, "
            f"torch {torch.__version__.split('+')[0]}, float32, eager", "tolerance": TOLERANCE, "prompts": prompts}
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    text = text.replace('"prompts":[', '"prompts":[\n').replace('},{"tokens"', '},\n{"tokens"')
    (ROOT / "logits").mkdir(parents=True, exist_ok=True)
    (ROOT / "logits" / f"{name}.json").write_text(text + "\n")


# ---- mutations: what a wrong implementation would get --------------------------------------------------

def mutations(cfg):
    """Name → changed config; each must move some checked log-probability by far more than the tolerance."""
    out = {}
    if cfg["model_type"] == "llama":
        out["no llama3 scaling"] = {"rope_scaling": None}
    if cfg["model_type"] == "qwen2":
        theta = cfg.get("rope_theta")
        key = {"rope_theta": 10000.0} if theta else {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}
        out["default rope base"] = key
    if cfg["model_type"] == "deepseek_v3":
        s = cfg["rope_scaling"]
        out["no yarn"] = {"rope_scaling": None}
        out["no mscale"] = {"rope_scaling": {**s, "mscale_all_dim": 0, "mscale": 0, "attention_factor": 1.0}}
        out["yarn ramp moved"] = {"rope_scaling": {**s, "beta_slow": 4}}
        out["no groups"] = {"n_group": 1, "topk_group": 1}
        out["no norm"] = {"norm_topk_prob": False}
        out["no routed scale"] = {"routed_scaling_factor": 1.0}
        out["half rotation"] = {"rope_interleave": False}
    out["eps"] = {"rms_norm_eps": cfg["rms_norm_eps"] * 1000}
    return out


def check_mutations(cfg, state, prompts):
    def distance(model):
        worst = 0.0
        for p in prompts:
            lp, _, _ = forward(model, p["tokens"])
            for r, top in p["rows"].items():
                for i, v in top:
                    worst = max(worst, abs(lp[int(r), i].item() - v))
        return worst

    for name, change in mutations(cfg).items():
        d = distance(load_state({**cfg, **change}, state))
        print(f"    {name}: {d:.3g}")
        assert d > 10 * TOLERANCE, (name, d)
    if cfg["model_type"] == "deepseek_v3":
        d = distance(load_state(cfg, {k: v * 0 if "e_score" in k else v for k, v in state.items()}))
        print(f"    no selection bias: {d:.3g}")
        assert d > 10 * TOLERANCE


# ---- the models ------------------------------------------------------------------------------------

def simple(name, cfg, seed, note, dtype=torch.float32, shards=1, kind=T.F32):
    """A folder and a GGUF file with the same weights."""
    state = tiny_gguf.round_to(weights(cfg, seed), dtype)
    tok = tiny_tokenizer.build(cfg["model_type"], N_VOCAB)
    folder = ROOT / "models" / name
    save_folder(folder, cfg, state, tok, dtype, shards)
    tiny_gguf.write(folder.with_suffix(".gguf"), cfg, state, tok, kind)
    prompts = reference(load(folder), seed)
    check_mutations(cfg, state, prompts)
    words = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}[dtype]
    write_reference(name, cfg, {name: words + (", sharded" if shards > 1 else ""), name + ".gguf": words}, prompts, note)


def qwen2_tied():
    simple("qwen2-tied", {**QWEN2, "rope_theta": 1000000.0, "tie_word_embeddings": True,
            "num_hidden_layers": 2}, 11,
           "tied head; F32 folder and F32 GGUF")


def qwen2_untied():
    rope = {"rope_parameters": {"rope_theta": 50000.0, "rope_type": "default"}}
    simple("qwen2-untied", {**QWEN2, **rope, "tie_word_embeddings": False}, 12,
           "own head; BF16 folder whose config has rope_parameters (the newer form); BF16 GGUF",
           torch.bfloat16, 1, T.BF16)


def llama3():
    simple("llama3", LLAMA, 13, "llama3 rope scaling; F16 folder in two shards; F16 GGUF with permuted Q and K",
           torch.float16, 2, T.F16)


def deepseek_v3():
    cfg, seed = DEEPSEEK, 22
    state = tiny_gguf.round_to(weights(cfg, seed), torch.bfloat16)
    tok = tiny_tokenizer.build(cfg["model_type"], N_VOCAB)
    folder = ROOT / "models" / "deepseek-v3"
    save_folder(folder, cfg, state, tok, torch.bfloat16)
    tiny_gguf.write(folder.parent / "deepseek-v3-kvb.gguf", cfg, state, tok, T.BF16)
    tiny_gguf.write(folder.parent / "deepseek-v3-mla.gguf", cfg, state, tok, T.BF16, absorbed=True)
    prompts = reference(load(folder), seed)
    check_mutations(cfg, state, prompts)
    write_reference("deepseek-v3", cfg, {"deepseek-v3": "BF16", "deepseek-v3-kvb.gguf": "BF16, attn_kv_b",
                                         "deepseek-v3-mla.gguf": "BF16, attn_k_b + attn_v_b"}, prompts,
                    "BF16 folder; BF16 GGUF files, one with attn_kv_b, one with attn_k_b and attn_v_b")


def deepseek_v3_nogroup():
    """A file without expert_group keys: one group, so plain top-k of the biased scores. One MoE layer less."""
    cfg = {**DEEPSEEK, "n_group": 1, "topk_group": 1, "num_hidden_layers": 2, "n_routed_experts": 4,
           "num_experts_per_tok": 2}
    state = tiny_gguf.round_to(weights(cfg, 15), torch.bfloat16)
    tok = tiny_tokenizer.build(cfg["model_type"], N_VOCAB)
    tiny_gguf.write(ROOT / "models" / "deepseek-v3-nogroup.gguf", cfg, state, tok, T.BF16, absorbed=True, groups=False)
    write_reference("deepseek-v3-nogroup", cfg, {"deepseek-v3-nogroup.gguf": "BF16, no expert_group keys"},
                    reference(load_state(cfg, state), 15),
                    "GGUF with attn_k_b and attn_v_b in BF16 and no expert_group keys: routing without groups")


def deepseek_v3_mtp():
    """With a multi-token-prediction layer; the folder stores embedding and head twice, as the released one does."""
    import mtp
    cfg = {**DEEPSEEK, "num_hidden_layers": 2, "num_nextn_predict_layers": 1, "hidden_size": 32, "intermediate_size": 48,
           "moe_intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "q_lora_rank": 24,
           "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12}
    state = tiny_gguf.round_to(weights(cfg, 31), torch.bfloat16)
    tok = tiny_tokenizer.build(cfg["model_type"], N_VOCAB)
    folder = ROOT / "models" / "deepseek-v3-mtp"
    save_folder(folder, cfg, state, tok, torch.bfloat16)
    files = {"deepseek-v3-mtp": "BF16 with MTP layer", "deepseek-v3-mtp.gguf": "BF16 with MTP layer"}
    tiny_gguf.write(folder.with_suffix(".gguf"), cfg, state, tok, T.BF16, absorbed=True)
    with mtp.layer_expected(cfg):
        prompts = reference(load(folder), 31)
        write_reference("deepseek-v3-mtp", cfg, files, prompts, "the main model of a checkpoint with an MTP layer")
        mtp.write_reference(ROOT / "mtp" / "deepseek-v3-mtp.json", files, folder, load(folder), prompts, TOP, TOLERANCE)


def wide_kinds(name):
    table = {"token_embd.weight": T.Q6_K, "attn_q.weight": T.Q4_K, "attn_k.weight": T.Q5_0, "attn_v.weight": T.Q6_K,
             "attn_output.weight": T.Q8_0, "ffn_gate.weight": T.Q5_K, "ffn_up.weight": T.Q4_0,
             "ffn_down.weight": T.Q4_K}
    return table.get(name.removeprefix("blk.0."), T.F32)


def qwen2_wide():
    cfg = {**QWEN2, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1, "rope_theta": 1000000.0,
           "tie_word_embeddings": True}
    state = weights(cfg, 16)
    tok = tiny_tokenizer.build(cfg["model_type"], N_VOCAB)
    tiny_gguf.write(ROOT / "models" / "qwen2-wide.gguf", cfg, state, tok, kinds=wide_kinds)
    model = load_state(cfg, tiny_gguf.dequantised(cfg, state, wide_kinds))
    write_reference("qwen2-wide", cfg, {"qwen2-wide.gguf": "Q4_K, Q5_K, Q6_K, Q4_0, Q5_0, Q8_0"}, reference(model, 16),
                    "Q4_K, Q5_K, Q6_K, Q4_0, Q5_0 and Q8_0 matrices; reference on the decoded weights")


MODELS = {f.__name__: f for f in (qwen2_tied, qwen2_untied, llama3, deepseek_v3, deepseek_v3_nogroup, deepseek_v3_mtp,
                                     qwen2_wide)}

if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    (ROOT / "models").mkdir(parents=True, exist_ok=True)
    for chosen in sys.argv[1:] or MODELS:
        print(chosen)
        MODELS[chosen]()
