#!/usr/bin/env python3
"""Reference log-probabilities of a real Qwen2 or Llama GGUF file.

    python tools/reference/dequant_logits.py FILE.gguf OUT.json [THREADS] [--article SQUAD.json]

Needs tools/golden/requirements.txt. The file's weights are decoded by the `gguf` package into float32 and run by
Hugging Face transformers (float32, eager attention): an independent decoder and an independent graph. Writes the
token ids of each text in texts.py and, at about 100 positions over all of them, the 50 most probable tokens with
their natural log-probability over the whole vocabulary. A 1.5B model takes about 8 GB of memory and a minute.

--article adds the perplexity of a SQuAD article's first 1,024 tokens (its passages joined by one space); of the text
only a digest of its ids is written.
"""
import argparse
import hashlib
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
    arch = kv["general.architecture"]
    q = {k.removeprefix(arch + "."): v for k, v in kv.items() if k.startswith(arch + ".")}
    cls = {"qwen2": transformers.Qwen2Config, "llama": transformers.LlamaConfig}[arch]
    return cls(
        vocab_size=len(kv["tokenizer.ggml.tokens"]), hidden_size=q["embedding_length"],
        intermediate_size=q["feed_forward_length"], num_hidden_layers=q["block_count"],
        num_attention_heads=q["attention.head_count"], num_key_value_heads=q["attention.head_count_kv"],
        max_position_embeddings=q["context_length"], rms_norm_eps=q["attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": q["rope.freq_base"]}, tie_word_embeddings=tied,
        attn_implementation="eager")


def restore_rows(value, n_head):
    """Llama files hold Q and K with adjacent rotary pairs; back to the checkpoint's halves."""
    dim = value.shape[0] // n_head
    return value.reshape(n_head, dim // 2, 2, -1).swapaxes(1, 2).reshape(value.shape)


def load(path, kv):
    reader = GGUFReader(path)
    tied = not any(t.name == "output.weight" for t in reader.tensors)
    cfg = config(kv, tied)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(cfg)
    state = {}
    for t in reader.tensors:
        value = dequantize(t.data, t.tensor_type)
        if cfg.model_type == "llama" and ("attn_q" in t.name or "attn_k" in t.name):
            value = restore_rows(value, cfg.num_attention_heads if "attn_q" in t.name else cfg.num_key_value_heads)
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


ARTICLE_TOKENS = (256, 1024)


def article(path, tok, model):
    """Perplexity of the first 256 and 1,024 tokens of the article."""
    paragraphs = json.loads(pathlib.Path(path).read_text())["data"][0]["paragraphs"]
    ids = tok.encode(" ".join(p["context"] for p in paragraphs)).ids[:max(ARTICLE_TOKENS)]
    with torch.no_grad():
        lp = torch.log_softmax(model(torch.tensor([ids]), use_cache=False).logits[0].double(), -1)
    follow = lp[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()
    return {"file": pathlib.Path(path).name, "digest": hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()[:12],
            "perplexity": {str(n): round(float(np.exp(-follow[:n - 1].mean())), 5) for n in ARTICLE_TOKENS}}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("path")
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("threads", type=int, nargs="?", default=2)
    p.add_argument("--article")
    args = p.parse_args()
    path, out = args.path, args.out
    torch.set_num_threads(args.threads)
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
            "tolerance": 1e-3 if kv["general.architecture"] == "llama" else 2e-3}
    if args.article:
        head["article"] = article(args.article, tok, model)
        print(head["article"])
    head["texts"] = result
    out.write_text(json.dumps(head, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")
    print(f"{count} positions of {total} ids")


if __name__ == "__main__":
    main()
