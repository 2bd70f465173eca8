#!/usr/bin/env python3
"""Writes GGUF files with random weights at the shapes of real models, to measure speed with.

    tools/random_gguf.py SHAPE TYPE OUT.gguf [--seed 1]
    tools/random_gguf.py --list

SHAPE is one of those of --list, TYPE one of q4_0, q4_k, q5_0, q6_k, q8_0: the type of every matrix (what a
K-quant's blocks of 256 do not divide becomes q8_0). Speed depends on shapes and types, not on values; values are
such that activations keep their size: block bytes are random, block scales make the weights' standard deviation
1/sqrt(row length). The vocabulary has the real one's size; after the 256 bytes its entries are dummies.

Every reader of GGUF can run the files (Holdfast, llama.cpp, ik_llama.cpp). Tensors are written as they are made,
so a large file needs little memory. The same arguments give the same bytes. Needs numpy.
"""
import argparse
import struct
import sys

import numpy as np

F32, Q4_0, Q5_0, Q8_0, Q4_K, Q6_K = 0, 2, 6, 8, 12, 14
ALIGN, CHUNK = 32, 1 << 22  # bytes made at once, about

# type: (elements of a block, its bytes, (offset of F16 scales, their factor), …, standard deviation of what a
# scale of 1 multiplies). Formats: the GGUF specification's; src/tensor/ has them in C.
BLOCKS = {
    Q4_0: (32, 18, [(0, 1.0)], 4.61),            # d, 16 bytes of nibbles, minus 8
    Q5_0: (32, 22, [(0, 1.0)], 9.23),            # d, 32 high bits, 16 bytes of nibbles, minus 16
    Q8_0: (32, 34, [(0, 1.0)], 73.9),            # d, 32 signed bytes
    Q4_K: (256, 144, [(0, 1.0), (2, 7.5)], 239), # d, dmin, 12 bytes of 6-bit scales and minima, nibbles
    Q6_K: (256, 210, [(208, 1.0)], 1365),        # 128 + 64 bytes of 6-bit values, 16 signed scales, d
}
TYPES = {"q4_0": Q4_0, "q4_k": Q4_K, "q5_0": Q5_0, "q6_k": Q6_K, "q8_0": Q8_0}
FILE_TYPE = {Q4_0: 2, Q8_0: 7, Q5_0: 8, Q4_K: 14, Q6_K: 18}  # general.file_type

SHAPES = {
    "qwen2-1.5b": dict(arch="qwen2", what="Qwen2.5-1.5B, R1-Distill-Qwen-1.5B", n_layer=28, n_embd=1536, n_head=12,
                       n_head_kv=2, head_dim=128, n_ff=8960, n_vocab=151936, n_ctx=32768, theta=1e6, eps=1e-6),
    "qwen2-7b": dict(arch="qwen2", what="R1-Distill-Qwen-7B", n_layer=28, n_embd=3584, n_head=28, n_head_kv=4,
                     head_dim=128, n_ff=18944, n_vocab=152064, n_ctx=131072, theta=1e4, eps=1e-6),
    "llama-8b": dict(arch="llama", what="R1-Distill-Llama-8B", n_layer=32, n_embd=4096, n_head=32, n_head_kv=8,
                     head_dim=128, n_ff=14336, n_vocab=128256, n_ctx=131072, theta=5e5, eps=1e-5),
    "deepseek-v3-14b": dict(arch="deepseek2", what="one dense and one expert layer of DeepSeek-V3 (256 experts, 8 used), 13.9B",
                            n_layer=2, n_layer_dense=1, n_embd=7168, n_head=128, n_ff=18432, n_ff_exp=2048,
                            n_expert=256, n_expert_used=8, q_lora=1536, kv_lora=512, nope=128, rope=64, v_dim=128,
                            n_vocab=129280, n_ctx=163840, theta=1e4, eps=1e-6),
    "tiny": dict(arch="qwen2", what="for tests", n_layer=2, n_embd=256, n_head=4, n_head_kv=2, head_dim=64, n_ff=512,
                 n_vocab=512, n_ctx=2048, theta=1e4, eps=1e-6),
    "tiny-moe": dict(arch="deepseek2", what="for tests", n_layer=2, n_layer_dense=1, n_embd=256, n_head=4, n_ff=512,
                     n_ff_exp=256, n_expert=16, n_expert_used=4, q_lora=256, kv_lora=128, nope=32, rope=32, v_dim=32,
                     n_vocab=512, n_ctx=2048, theta=1e4, eps=1e-6),
}


def attention(s):
    """(name, GGUF dimensions, fastest first) of a layer's attention; without a second dimension a vector."""
    d = s["n_embd"]
    if s["arch"] == "deepseek2":
        n, key = s["n_head"], s["nope"] + s["rope"]
        return [("attn_q_a.weight", (d, s["q_lora"])), ("attn_q_a_norm.weight", (s["q_lora"],)),
                ("attn_q_b.weight", (s["q_lora"], n * key)), ("attn_kv_a_mqa.weight", (d, s["kv_lora"] + s["rope"])),
                ("attn_kv_a_norm.weight", (s["kv_lora"],)), ("attn_k_b.weight", (s["nope"], s["kv_lora"], n)),
                ("attn_v_b.weight", (s["kv_lora"], s["v_dim"], n)), ("attn_output.weight", (n * s["v_dim"], d))]
    q, kv = s["n_head"] * s["head_dim"], s["n_head_kv"] * s["head_dim"]
    out = [("attn_q.weight", (d, q)), ("attn_k.weight", (d, kv)), ("attn_v.weight", (d, kv)),
           ("attn_output.weight", (q, d))]
    if s["arch"] == "qwen2":
        out += [("attn_q.bias", (q,)), ("attn_k.bias", (kv,)), ("attn_v.bias", (kv,))]
    return out


def feed_forward(s, layer):
    d = s["n_embd"]
    if s["arch"] != "deepseek2" or layer < s["n_layer_dense"]:
        return [("ffn_gate.weight", (d, s["n_ff"])), ("ffn_up.weight", (d, s["n_ff"])),
                ("ffn_down.weight", (s["n_ff"], d))]
    f, e = s["n_ff_exp"], s["n_expert"]
    return [("ffn_gate_inp.weight", (d, e)), ("exp_probs_b.bias", (e,)),
            ("ffn_gate_exps.weight", (d, f, e)), ("ffn_up_exps.weight", (d, f, e)),
            ("ffn_down_exps.weight", (f, d, e)), ("ffn_gate_shexp.weight", (d, f)),
            ("ffn_up_shexp.weight", (d, f)), ("ffn_down_shexp.weight", (f, d))]


def tensors(s, dtype):
    """(name, dimensions, type) of every tensor, in the order of the file."""
    rows = [("token_embd.weight", (s["n_embd"], s["n_vocab"])), ("output.weight", (s["n_embd"], s["n_vocab"])),
            ("output_norm.weight", (s["n_embd"],))]
    for i in range(s["n_layer"]):
        parts = [("attn_norm.weight", (s["n_embd"],)), *attention(s), ("ffn_norm.weight", (s["n_embd"],)),
                 *feed_forward(s, i)]
        rows += [(f"blk.{i}.{name}", dims) for name, dims in parts]
    for name, dims in rows:
        if len(dims) == 1 or "ffn_gate_inp" in name:
            yield name, dims, F32
        else:
            yield name, dims, dtype if dims[0] % BLOCKS[dtype][0] == 0 else Q8_0


def n_bytes(dims, dtype):
    n = int(np.prod(dims))
    return 4 * n if dtype == F32 else n // BLOCKS[dtype][0] * BLOCKS[dtype][1]


def keys(s, dtype, name):
    a = s["arch"]
    yield "general.architecture", a
    yield "general.name", f"random weights, {name}"
    yield "general.file_type", FILE_TYPE[dtype]
    for key, value in (("block_count", s["n_layer"]), ("context_length", s["n_ctx"]),
                       ("embedding_length", s["n_embd"]), ("feed_forward_length", s["n_ff"]),
                       ("attention.head_count", s["n_head"]), ("rope.freq_base", s["theta"]),
                       ("attention.layer_norm_rms_epsilon", s["eps"]), ("vocab_size", s["n_vocab"])):
        yield f"{a}.{key}", value
    if a == "deepseek2":
        for key, value in (("attention.head_count_kv", 1), ("attention.q_lora_rank", s["q_lora"]),
                           ("attention.kv_lora_rank", s["kv_lora"]),
                           ("attention.key_length", s["kv_lora"] + s["rope"]),
                           ("attention.value_length", s["kv_lora"]),
                           ("attention.key_length_mla", s["nope"] + s["rope"]),
                           ("attention.value_length_mla", s["v_dim"]),
                           ("leading_dense_block_count", s["n_layer_dense"]), ("expert_count", s["n_expert"]),
                           ("expert_used_count", s["n_expert_used"]), ("expert_shared_count", 1),
                           ("expert_feed_forward_length", s["n_ff_exp"]), ("expert_weights_scale", 2.5),
                           ("expert_weights_norm", True), ("expert_gating_func", 2),
                           ("rope.dimension_count", s["rope"])):
            yield f"{a}.{key}", value
    else:
        yield f"{a}.attention.head_count_kv", s["n_head_kv"]
        yield f"{a}.rope.dimension_count", s["head_dim"]
    yield "tokenizer.ggml.model", "gpt2"
    yield "tokenizer.ggml.pre", {"qwen2": "qwen2", "llama": "llama-bpe", "deepseek2": "deepseek-v3"}[a]
    yield "tokenizer.ggml.tokens", vocabulary(s["n_vocab"])
    yield "tokenizer.ggml.token_type", np.array([1] * (s["n_vocab"] - 1) + [3], np.int32)
    yield "tokenizer.ggml.merges", [f"{BYTES[32]} {BYTES[97]}"]
    yield "tokenizer.ggml.eos_token_id", s["n_vocab"] - 1


def byte_alphabet():
    """GPT-2's letters for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(rest)) for b in range(256)]


BYTES = byte_alphabet()


def vocabulary(n):
    words = [*BYTES, BYTES[32] + BYTES[97]]
    return words + [f"<dummy {i}>" for i in range(len(words), n - 1)] + ["<|end|>"]


def text(s):
    raw = s.encode()
    return struct.pack("<Q", len(raw)) + raw


def value_bytes(value):
    """A value with its GGUF type before it."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if isinstance(value, np.ndarray):
        return struct.pack("<IIQ", 9, 5, len(value)) + value.astype("<i4").tobytes()
    return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))


def header(s, dtype, name):
    """(everything before the data, [(dimensions, type, padding behind it)])."""
    kv = list(keys(s, dtype, name))
    rows = list(tensors(s, dtype))
    out = [b"GGUF", struct.pack("<IQQ", 3, len(rows), len(kv))]
    out += [text(key) + value_bytes(value) for key, value in kv]
    plan, offset = [], 0
    for tensor, dims, kind in rows:
        out.append(text(tensor) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset))
        size = n_bytes(dims, kind)
        pad = -size % ALIGN
        plan.append((tensor, dims, kind, pad))
        offset += size + pad
    raw = b"".join(out)
    return raw + bytes(-len(raw) % ALIGN), plan


def blocks(rng, dtype, n, n_in):
    """n blocks of rows of n_in elements."""
    _, size, scales, deviation = BLOCKS[dtype]
    raw = np.frombuffer(rng.bytes(n * size), np.uint8).reshape(n, size).copy()
    for at, factor in scales:
        scale = np.full(n, factor / deviation / n_in ** 0.5, "<f2")
        raw[:, at:at + 2] = scale.view(np.uint8).reshape(n, 2)
    return raw


def write_tensor(f, rng, name, dims, dtype):
    if dtype == F32:
        if "norm" in name:
            values = np.ones(dims[0])
        else:  # biases, and the router's matrix
            values = rng.standard_normal(int(np.prod(dims))) * (0.01 if len(dims) == 1 else dims[0] ** -0.5)
        f.write(values.astype("<f4").tobytes())
        return
    left = n_bytes(dims, dtype) // BLOCKS[dtype][1]
    step = CHUNK // BLOCKS[dtype][1]
    while left > 0:
        f.write(blocks(rng, dtype, min(left, step), dims[0]).data)
        left -= step


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("shape", nargs="?", choices=SHAPES)
    p.add_argument("type", nargs="?", choices=TYPES)
    p.add_argument("out", nargs="?")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--list", action="store_true", help="shapes, and the size of their files")
    args = p.parse_args()
    if args.list:
        for name, s in SHAPES.items():
            sizes = (f"{t} {sum(n_bytes(d, k) for _, d, k in tensors(s, q)) / 1e9:.2f}" for t, q in TYPES.items())
            print(f"{name:16} {s['what']}; GB: {', '.join(sizes)}")
        return
    if not args.out:
        p.error("SHAPE TYPE OUT.gguf, or --list")
    rng = np.random.default_rng(args.seed)
    head, plan = header(SHAPES[args.shape], TYPES[args.type], f"{args.shape} {args.type}")
    try:
        with open(args.out, "wb") as f:
            f.write(head)
            for name, dims, dtype, pad in plan:
                write_tensor(f, rng, name, dims, dtype)
                f.write(bytes(pad))
    except OSError as e:
        sys.exit(f"{args.out}: {e.strerror}")


if __name__ == "__main__":
    main()
