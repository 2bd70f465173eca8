#!/usr/bin/env python3
"""Makes tiny random checkpoints in the quantised forms of Hugging Face folders.

    python tools/golden/make_checkpoints.py [NAME…] [--autoawq FOLDER]

Needs tools/golden/requirements.txt. Writes tests/golden/models/NAME/ and tests/golden/logits/NAME.json (the
oracle: transformers on the dequantised weights, see make_tiny.py) and tests/golden/checkpoints.txt, the
SHA-256 of every dequantised matrix in F32, [out, in].

Packing and dequantisation are written here from the packages' formulas, in numpy, apart from each other:
  AWQ    AutoAWQ, awq/utils/packing_utils.py and modules/linear/gemm.py ("gemm")
  GPTQ   GPTQModel, nn_modules/qlinear (pack_original, dequantize_weight) and
         utils/model.py (convert_gptq_v1_to_v2_format_module)
  FP8    DeepSeek-V3, README_WEIGHTS.md and inference/fp8_cast_bf16.py, with torch.float8_e4m3fn
  NF4    bitsandbytes itself packs; its own dequantize_4bit on the CPU must agree
--autoawq names an unpacked AutoAWQ source package: its dequantize_gemm must then agree as well.
"""
import argparse
import hashlib
import importlib.util
import json
import pathlib
import shutil

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

import make_tiny
from make_tiny import DEEPSEEK, QWEN2, ROOT

make_tiny.N_VOCAB = N_VOCAB = 96
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # nibble i of a word holds column AWQ_ORDER[i]
CHECK_AWQ = None


def words(columns):
    """[..., per word, n] unsigned values → int32, first one lowest."""
    bits = 32 // columns.shape[-1]
    shifted = columns.astype(np.uint64) << (np.arange(columns.shape[-1], dtype=np.uint64) * np.uint64(bits))
    return torch.from_numpy(shifted.sum(-1).astype(np.uint32).view(np.int32).copy())


def unpack(packed, bits):
    """int32 → [..., per word] unsigned values, lowest first."""
    v = packed.numpy().view(np.uint32)[..., None] >> (np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits))
    return v & np.uint32(2 ** bits - 1)


def round_groups(w, group, bits, sym, rng):
    """Rounds w [out, in] by groups of inputs → q [out, in], zeros [out, G], scales f16 [out, G]."""
    n_out, n_in = w.shape
    top, g = 2 ** bits - 1, -(-n_in // group)
    q, z, s = np.zeros((n_out, n_in), np.int64), np.zeros((n_out, g), np.int64), np.zeros((n_out, g), np.float16)
    for i in range(g):
        part = w[:, i * group:(i + 1) * group]
        low, high = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
        if sym:
            high = np.maximum(-low, high)
            low = -high
        s[:, i] = ((high - low) / top).astype(np.float16)
        z[:, i] = 2 ** (bits - 1) if sym else np.rint(-low / s[:, i].astype(np.float32))
        if not sym:
            z[rng.integers(0, n_out, 3), i] = rng.integers(0, 2, 3) * top  # zeros at both ends too
        q[:, i * group:(i + 1) * group] = np.clip(np.rint(part / s[:, i:i + 1].astype(np.float32)) + z[:, i:i + 1], 0, top)
    return q, z, s


# ---- schemes: a matrix [out, in] → its tensors; and back by the published formula ------------------------

class Awq:
    def __init__(self, group):
        self.group = group
        self.config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm",
                       "modules_to_not_convert": None}

    def pack(self, w, rng):
        q, z, s = round_groups(w, self.group, 4, False, rng)
        order = lambda m: words(m.T.reshape(m.shape[1], -1, 8)[..., AWQ_ORDER])
        return {"qweight": order(q), "qzeros": order(z), "scales": torch.from_numpy(s.T.copy())}

    def unpack(self, t):
        back = np.argsort(AWQ_ORDER)
        q, z = (unpack(t[k], 4)[..., back].reshape(t[k].shape[0], -1).astype(np.float32) for k in ("qweight", "qzeros"))
        s = t["scales"].numpy().astype(np.float32)
        w = (q - z.repeat(self.group, 0)) * s.repeat(self.group, 0)
        if CHECK_AWQ:
            theirs = CHECK_AWQ.dequantize_gemm(t["qweight"], t["qzeros"], t["scales"], 4, self.group)
            assert torch.equal(theirs, torch.from_numpy(w).half()), "AutoAWQ disagrees"
        return w.T.copy()


class Gptq:
    def __init__(self, bits, group, v2=False, sym=True, desc_act=False):
        self.bits, self.group, self.v2, self.sym, self.desc_act = bits, group, v2, sym, desc_act
        self.config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": desc_act, "sym": sym,
                       "checkpoint_format": "gptq_v2" if v2 else "gptq", "true_sequential": True,
                       "lm_head": False, "damp_percent": 0.01}

    def pack(self, w, rng):
        n_in = w.shape[1]
        group = n_in if self.group == -1 else self.group
        # desc_act: groups are made of the inputs in the order of their importance
        order = rng.permutation(n_in) if self.desc_act else np.arange(n_in)
        q_sorted, z, s = round_groups(w[:, order], group, self.bits, self.sym, rng)
        q, g_idx = np.zeros_like(q_sorted), np.zeros(n_in, np.int32)
        q[:, order] = q_sorted
        g_idx[order] = np.arange(n_in) // group
        per = 32 // self.bits
        qzeros = words(z.T.reshape(z.shape[1], -1, per))
        if not self.v2:
            minus = np.uint32(sum(1 << (self.bits * i) for i in range(per)))
            qzeros = torch.from_numpy((qzeros.numpy().view(np.uint32) - minus).view(np.int32))
        return {"qweight": words(q.T.reshape(-1, per, q.shape[0]).swapaxes(1, 2)), "qzeros": qzeros,
                "scales": torch.from_numpy(s.T.copy()), "g_idx": torch.from_numpy(g_idx)}

    def unpack(self, t):
        q = unpack(t["qweight"], self.bits).swapaxes(1, 2).reshape(-1, t["qweight"].shape[1])
        qzeros = t["qzeros"]
        if not self.v2:
            qzeros = qzeros + {4: 0b00010001000100010001000100010001, 8: 0b00000001000000010000000100000001}[self.bits]
        z = unpack(qzeros, self.bits).reshape(qzeros.shape[0], -1)
        g = t["g_idx"].long().numpy()
        s = t["scales"].numpy().astype(np.float32)
        return (s[g] * (q.astype(np.float32) - z.astype(np.float32)[g])).T.copy()


class Fp8:
    config = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}

    def pack(self, w, rng):
        n_out, n_in = w.shape
        q = torch.zeros(n_out, n_in, dtype=torch.float8_e4m3fn)
        s = torch.zeros(-(-n_out // 128), -(-n_in // 128))
        for i in range(s.shape[0]):
            for j in range(s.shape[1]):
                at = np.s_[i * 128:(i + 1) * 128, j * 128:(j + 1) * 128]
                part = torch.from_numpy(w[at].copy())
                s[i, j] = part.abs().max() / 448
                q[at] = (part / s[i, j]).to(torch.float8_e4m3fn)
        return {"weight": q, "weight_scale_inv": s}

    def unpack(self, t):
        n_out, n_in = t["weight"].shape
        s = t["weight_scale_inv"].repeat_interleave(128, 0)[:n_out].repeat_interleave(128, 1)[:, :n_in]
        return (t["weight"].float() * s).numpy()


class Bnb:
    def __init__(self, kind, double):
        self.kind, self.double = kind, double
        self.config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False,
                       "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double,
                       "bnb_4bit_compute_dtype": "float32", "bnb_4bit_quant_storage": "uint8"}

    def pack(self, w, rng):
        import bitsandbytes.functional as F
        q, state = F.quantize_4bit(torch.from_numpy(w), blocksize=64, compress_statistics=self.double,
                                   quant_type=self.kind)
        self.theirs = F.dequantize_4bit(q, state).numpy()
        return {"weight": q, **{"weight." + k: v for k, v in state.as_dict(packed=True).items()}}

    def unpack(self, t):
        state = json.loads(bytes(t[f"weight.quant_state.bitsandbytes__{self.kind}"].tolist()))
        absmax = t["weight.absmax"]
        if "weight.nested_absmax" in t:
            absmax = t["weight.nested_quant_map"][absmax.long()] * t["weight.nested_absmax"].repeat_interleave(
                state["nested_blocksize"])[:len(absmax)]
            absmax = absmax + np.float32(state["nested_offset"])
        q = t["weight"].flatten()
        q = torch.stack([q >> 4, q & 15], -1).flatten().long()
        w = t["weight.quant_map"][q] * absmax.repeat_interleave(state["blocksize"])[:len(q)]
        w = w.reshape(state["shape"]).numpy()
        assert np.array_equal(w, self.theirs), "bitsandbytes disagrees"
        return w


# ---- checkpoints ---------------------------------------------------------------------------------------

def converted(name):
    """Projections are; embeddings, head, norms and the router are not."""
    return name.endswith("_proj.weight") or name.endswith("kv_a_proj_with_mqa.weight")


def save(folder, config, tensors, shards):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    keys, where = list(tensors), {}
    for i in range(shards):
        file = "model.safetensors" if shards == 1 else f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = keys[i::shards]  # parts of one matrix in different files
        save_file({k: tensors[k].contiguous() for k in part}, folder / file, {"format": "pt"})
        where.update({k: file for k in part})
    if shards > 1:
        index = {"metadata": {}, "weight_map": dict(sorted(where.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=0) + "\n")


def checkpoint(name, cfg, scheme, seed, note, plain=torch.float16, shards=1):
    rng = np.random.Generator(np.random.PCG64(seed))
    tensors, state, digests = {}, {}, []
    same = {}  # desc_act: matrices that share an input share its order
    for key, w in make_tiny.weights(cfg, seed).items():
        if not converted(key):
            dtype = torch.float32 if "e_score" in key else plain
            tensors[key] = torch.from_numpy(w).to(dtype)
            state[key] = tensors[key].float().numpy()
            continue
        prefix, group = key[:-len("weight")], key.split(".")[-2]
        seed_of = {"q_proj": 1, "k_proj": 1, "v_proj": 1, "gate_proj": 2, "up_proj": 2}.get(group, 3)
        own = np.random.Generator(np.random.PCG64([seed, seed_of])) if group != "down_proj" else rng
        if ".experts." in key and getattr(scheme, "desc_act", False):  # each its own, in every other one gate's is up's
            expert = int(key.split(".")[-3])
            own = np.random.Generator(np.random.PCG64([seed, 9, expert])) if expert % 2 and group != "down_proj" else rng
        parts = scheme.pack(w, own)
        tensors.update({prefix + k: v for k, v in parts.items()})
        state[key] = scheme.unpack(parts)
        digests.append(f"{name} {key} {hashlib.sha256(state[key].astype('<f4').tobytes()).hexdigest()}")
    names = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32"}
    save(ROOT / "models" / name, {**cfg, "torch_dtype": names[plain], "quantization_config": scheme.config},
         tensors, shards)
    prompts = make_tiny.reference(make_tiny.load_state(cfg, state), seed)
    make_tiny.write_reference(name, cfg, {name: note}, prompts, note)
    return digests


def qwen2(**change):
    return {**QWEN2, "vocab_size": N_VOCAB, "num_hidden_layers": 1, "rope_theta": 1000000.0, "tie_word_embeddings": True,
            "bos_token_id": 90, "eos_token_id": 91, **change}


SMALL = {**DEEPSEEK, "vocab_size": N_VOCAB, "num_hidden_layers": 2, "n_routed_experts": 4, "num_experts_per_tok": 2,
         "n_group": 2, "topk_group": 1, "bos_token_id": 90, "eos_token_id": 91}
CHECKPOINTS = {
    "qwen2-awq": lambda n: checkpoint(n, qwen2(hidden_size=128, intermediate_size=160, num_attention_heads=8),
                                      Awq(32), 41, "AWQ gemm, groups of 32"),
    "qwen2-awq-128": lambda n: checkpoint(n, qwen2(hidden_size=128, intermediate_size=128, num_attention_heads=8),
                                          Awq(128), 48, "AWQ gemm, groups of 128; in two shards", shards=2),
    "qwen2-gptq": lambda n: checkpoint(n, qwen2(), Gptq(4, 32), 42, "GPTQ v1, 4 bits, groups of 32, symmetric"),
    "qwen2-gptq-v2": lambda n: checkpoint(n, qwen2(intermediate_size=128), Gptq(4, 64, v2=True, sym=False), 43,
                                          "GPTQ v2, 4 bits, groups of 64, zeros of 0 and 15"),
    "qwen2-gptq-v1-asym": lambda n: checkpoint(n, qwen2(), Gptq(4, 32, sym=False), 52,
                                               "GPTQ v1, 4 bits, groups of 32, zeros of 0 that borrow"),
    "qwen2-gptq-act": lambda n: checkpoint(n, qwen2(), Gptq(4, 32, desc_act=True), 44,
                                           "GPTQ v1, 4 bits, groups of 32 in the order of g_idx"),
    "qwen2-gptq-8": lambda n: checkpoint(n, qwen2(), Gptq(8, -1, v2=True, sym=False), 45,
                                         "GPTQ v2, 8 bits, one group per row, zeros of 0 and 255"),
    "qwen2-nf4": lambda n: checkpoint(n, qwen2(intermediate_size=128), Bnb("nf4", True), 46,
                                      "bitsandbytes NF4, double quantisation", torch.bfloat16),
    "qwen2-fp4": lambda n: checkpoint(n, qwen2(intermediate_size=128), Bnb("fp4", False), 47,
                                      "bitsandbytes FP4", torch.bfloat16),
    "deepseek-v3-fp8": lambda n: checkpoint(
        n, {**SMALL, "hidden_size": 144, "intermediate_size": 72, "kv_lora_rank": 136, "num_attention_heads": 2,
            "num_key_value_heads": 2}, Fp8(), 49,
        "FP8 with scales of 128x128 blocks that neither side divides; in two shards", torch.bfloat16, 2),
    "deepseek-v3-awq": lambda n: checkpoint(n, {**SMALL, "moe_intermediate_size": 32}, Awq(32), 50,
                                            "AWQ gemm, experts and kv_b too"),
    "deepseek-v3-gptq-act": lambda n: checkpoint(
        n, {**SMALL, "num_hidden_layers": 1, "moe_intermediate_size": 32}, Gptq(4, 32, desc_act=True), 51,
        "GPTQ in the order of g_idx under MLA, no experts"),
    "deepseek-v3-gptq-act-moe": lambda n: checkpoint(
        n, {**SMALL, "moe_intermediate_size": 64}, Gptq(4, 32, desc_act=True), 53,
        "GPTQ in orders of g_idx that differ from expert to expert"),
}


def main():
    global CHECK_AWQ
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("names", nargs="*")
    p.add_argument("--autoawq")
    args = p.parse_args()
    if args.autoawq:
        spec = importlib.util.spec_from_file_location("packing_utils", pathlib.Path(args.autoawq) / "awq/utils/packing_utils.py")
        CHECK_AWQ = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(CHECK_AWQ)
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    path = ROOT / "checkpoints.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    for name in args.names or CHECKPOINTS:
        print(name)
        lines = [x for x in lines if x.split()[0] != name] + CHECKPOINTS[name](name)
    path.write_text("\n".join(sorted(lines)) + "\n")


if __name__ == "__main__":
    main()
