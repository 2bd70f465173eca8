#!/usr/bin/env python3
"""Reference log-probabilities of a real Qwen2 GGUF file.

    python tools/reference/dequant_logits.py FILE.gguf OUT.json

Needs tools/golden/requirements.txt. The file's weights are decoded by the `gguf` package into float32 and run by
Hugging Face transformers (float32, eager attention): an independent decoder and an independent graph. Writes the
token ids of each text in texts.py and, at about 100 positions over all of them, the 50 most probable tokens with
their natural log-probability over the whole vocabulary. A 1.5B model takes about 8 GB of memory and a minute.
"""
import json
import pathlib
import re
import sys

import numpy as np
import torch
import transformers
from gguf import GGUFReader, dequantize

import texts

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "golden"))
import gguf_header  # noqa: E402
import make_token_goldens  # noqa: E402

TOP, POSITIONS = 50, 100
NAMES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
TOPS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight"}


def hf_name(name):
    if name in TOPS:
        return TOPS[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.{kind}"


def config(kv, tied):
    q = {k.removeprefix("qwen2."): v for k, v in kv.items() if k.startswith("qwen2.")}
    return transformers.Qwen2Config(
        vocab_size=len(kv["tokenizer.ggml.tokens"]), hidden_size=q["embedding_length"],
        intermediate_size=q["feed_forward_length"], num_hidden_layers=q["block_count"],
        num_attention_heads=q["attention.head_count"], num_key_value_heads=q["attention.head_count_kv"],
        max_position_embeddings=q["context_length"], rms_norm_eps=q["attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": q["rope.freq_base"]}, tie_word_embeddings=tied,
        attn_implementation="eager")


def load(path, kv):
    reader = GGUFReader(path)
    tied = not any(t.name == "output.weight" for t in reader.tensors)
    cfg = config(kv, tied)
    with torch.device("meta"):
        model = transformers.Qwen2ForCausalLM(cfg)
    state = {}
    for t in reader.tensors:
        value = dequantize(t.data, t.tensor_type)
        state[hf_name(t.name)] = torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32))
    if tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    missing, extra = model.load_state_dict(state, assign=True, strict=True)
    assert not missing and not extra
    model.model.rotary_emb = type(model.model.rotary_emb)(cfg)
    return model.eval()


def encode(tok, kv, text):
    pieces = re.split("(" + "|".join(map(re.escape, texts.SPECIAL)) + ")", text)
    ids = []
    for p in pieces:
        ids += [kv["tokenizer.ggml.tokens"].index(p)] if p in texts.SPECIAL else tok.encode(p).ids
    return ids


def main():
    path, out = sys.argv[1], pathlib.Path(sys.argv[2])
    torch.set_num_threads(int(sys.argv[3]) if len(sys.argv) > 3 else 2)
    kv = gguf_header.read(path)
    tok = make_token_goldens.plain_from_gguf(path)
    model = load(path, kv)
    encoded = {name: encode(tok, kv, text) for name, text in texts.TEXTS.items()}
    total = sum(map(len, encoded.values()))
    result, count = [], 0
    for name, ids in encoded.items():
        n = round(POSITIONS * len(ids) / total)
        at = sorted({round(i) for i in np.linspace(1, len(ids) - 1, n)})
        with torch.no_grad():
            hidden = model.model(torch.tensor([ids]), use_cache=False).last_hidden_state[0, at]
            lp = torch.log_softmax(model.lm_head(hidden).double(), -1)
        rows = {}
        for r, row in zip(at, lp):
            v, i = row.topk(TOP)
            rows[str(r)] = [[int(a), round(float(b), 5)] for a, b in zip(i, v)]
        result.append({"name": name, "tokens": ids, "rows": rows})
        count += len(at)
        print(f"{name}: {len(ids)} ids, {len(at)} positions", flush=True)
    head = {"model": pathlib.Path(path).name, "reference": f"gguf decoder, transformers {transformers.__version__}, float32, eager",
            "tolerance": 2e-3, "texts": result}
    out.write_text(json.dumps(head, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")
    print(f"{count} positions of {total} ids")


if __name__ == "__main__":
    main()
