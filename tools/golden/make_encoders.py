#!/usr/bin/env python3
"""Makes the tiny random encoders and what transformers computes with them.

    python tools/golden/make_encoders.py

Needs tools/golden/requirements.txt. Writes tests/golden/models/enc-* and tests/golden/encoders/*.json. The oracle is
Hugging Face transformers in float32 with eager attention, on the weights as they are stored (F16, BF16, F32). The run
is deterministic: same packages, same numbers.

    enc-bert      BertModel, erf GELU, mean pooling, folder with sentence-transformers' files and a WordPiece tokenizer,
                  and the same weights as GGUF
    enc-m3        XLMRobertaModel with BGE-M3's sparse and ColBERT heads, all in PyTorch's own files
    enc-reranker  XLMRobertaForSequenceClassification, ReLU
    enc-cross     BertForSequenceClassification, tanh GELU, token types, WordPiece tokenizer, pairs of texts

`mutations` changes what an engine could get wrong and refuses a model in which the change is not seen.
"""
import json
import pathlib
import shutil

import numpy as np
import torch
import transformers
from gguf import GGUFWriter, PoolingType
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
N, HEADS, FF, VOCAB, POSITIONS = 24, 4, 40, 64, 80
LENGTHS = (3, 17, 64, 75)
TOLERANCE = 1e-5
SHAPE = {"hidden_size": N, "num_attention_heads": HEADS, "intermediate_size": FF, "vocab_size": VOCAB}
TEXTS = ["hello there", "a tale of two words: one long, one short!", "Unknown 字 and CAPITALS", "x" * 30, ""]
PAIRS = [["what is it", "it is a pair"], ["a", "b " * 60], ["q " * 50, "short"], ["two Words", ""]]


def rng(seed):
    return np.random.Generator(np.random.PCG64(seed))


def randomise(model, seed):
    """Weights large enough that every part of the graph shows."""
    r = rng(seed)
    for name, p in model.named_parameters():
        draw = r.standard_normal(tuple(p.shape)).astype(np.float32)
        if "LayerNorm.weight" in name:
            value = 1 + 0.2 * draw
        elif name.endswith("bias"):
            value = 0.3 * draw
        elif "embeddings" in name:
            value = draw
        else:
            value = 1.3 * draw / np.sqrt(p.shape[-1])
        p.data = torch.tensor(value.astype(np.float32))
    return model.eval()


def stored(model, dtype):
    """The state as the file will hold it; the model then computes with those very values."""
    state = {}
    for name, p in model.state_dict().items():
        if p.dtype == torch.float32:
            state[name] = p.to(dtype).contiguous().clone()
            p.copy_(state[name].to(torch.float32))
    return state


def folder(name):
    path = ROOT / "models" / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n")


def config(cls, **fields):
    c = cls(**SHAPE, **fields)
    c._attn_implementation = "eager"
    return c


def save_config(path, cfg, architecture):
    d = cfg.to_dict()
    d["architectures"] = [architecture]
    for key in ("transformers_version", "_name_or_path", "dtype", "torch_dtype"):
        d.pop(key, None)
    write(path / "config.json", d)


def tokenizer(path, n_max):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list("abcdefghijklmnopqrstuvwxyz")
    pieces += ["##" + c for c in "abcdefghijklmnopqrstuvwxyz"] + [",", "!", ":", "it", "##re", "two", "word"]
    t = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    t.add_special_tokens(pieces[:5])
    t.save(str(path / "tokenizer.json"), pretty=False)
    write(path / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "model_max_length": n_max})
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"), pad_token="[PAD]",
                                                cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]")


def ids_of(seed, first, last, low):
    r = rng(seed)
    return [[first] + r.integers(low, VOCAB, n - 2).tolist() + [last] for n in LENGTHS]


def rounded(x):
    return [float(f"{v:.7g}") for v in np.asarray(x, np.float64).ravel()]


@torch.no_grad()
def hidden(model, ids, types=None):
    kind = None if types is None else torch.tensor([types])
    return model(torch.tensor([ids]), token_type_ids=kind).last_hidden_state[0]


def unit(v):
    return (v / v.norm(dim=-1, keepdim=True)).numpy()


def mean_of(model, ids):
    return unit(hidden(model, ids).mean(0))


def seen(what, a, b):
    d = float(np.abs(np.asarray(a) - np.asarray(b)).max())
    print(f"    {what}: {d:.2g}")
    assert d > 5 * TOLERANCE, f"{what} is not seen"


def mutations(model, cls, ids, head):
    """Each of these must move the result."""
    good = head(model, ids)
    seen("ids in another order", good, head(model, ids[:1] + ids[2:0:-1] + ids[3:]))
    for field, value in (("hidden_act", "gelu_new" if model.config.hidden_act == "gelu" else "gelu"),
                         ("num_attention_heads", 2), ("layer_norm_eps", 0.1)):
        other = cls(type(model.config)(**{**model.config.to_dict(), field: value})).eval()
        other.load_state_dict(model.state_dict())
        seen(f"{field} {value}", good, head(other, ids))
    rows = model.state_dict()
    name = next(k for k in rows if k.endswith("position_embeddings.weight"))
    kept = rows[name].clone()
    rows[name].copy_(kept.roll(1, 0))
    seen("positions off by one", good, head(model, ids))
    rows[name].copy_(kept)


# ---- the models ------------------------------------------------------------------------------------

def gguf(path, model, state):
    w, c = GGUFWriter(str(path), "bert"), model.config
    w.add_name("tiny random bert")
    w.add_context_length(POSITIONS)
    w.add_embedding_length(N)
    w.add_block_count(c.num_hidden_layers)
    w.add_feed_forward_length(FF)
    w.add_head_count(HEADS)
    w.add_layer_norm_eps(c.layer_norm_eps)
    w.add_causal_attention(False)
    w.add_pooling_type(PoolingType.MEAN)
    names = {"embeddings.word_embeddings": "token_embd", "embeddings.position_embeddings": "position_embd",
             "embeddings.token_type_embeddings": "token_types", "embeddings.LayerNorm": "token_embd_norm"}
    parts = {"attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
             "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
             "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm"}
    for i in range(c.num_hidden_layers):
        names.update({f"encoder.layer.{i}.{k}": f"blk.{i}.{v}" for k, v in parts.items()})
    for name, value in state.items():
        base, end = name.rsplit(".", 1)
        if base in names:
            wide = value.dim() == 1 or "position" in name or "token_type" in name  # as converters do
            w.add_tensor(f"{names[base]}.{end}", value.to(torch.float32 if wide else value.dtype).numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def make_bert():
    print("enc-bert")
    cfg = config(transformers.BertConfig, num_hidden_layers=2, max_position_embeddings=POSITIONS)
    model = randomise(transformers.BertModel(cfg, add_pooling_layer=False), 1)
    state, path = stored(model, torch.float16), folder("enc-bert")
    save_file(state, path / "model.safetensors")
    save_config(path, cfg, "BertModel")
    types = "sentence_transformers.models."
    write(path / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": types + "Transformer"},
                                  {"idx": 1, "name": "1", "path": "1_Pooling", "type": types + "Pooling"},
                                  {"idx": 2, "name": "2", "path": "2_Normalize", "type": types + "Normalize"}])
    write(path / "1_Pooling" / "config.json", {"word_embedding_dimension": N, "pooling_mode_cls_token": False,
                                               "pooling_mode_mean_tokens": True})
    write(path / "sentence_bert_config.json", {"max_seq_length": 76})
    write(path / "config_sentence_transformers.json", {"prompts": {"query": "ask: ", "document": "text: "}})
    tok = tokenizer(path, 76)
    gguf(ROOT / "models" / "enc-bert.gguf", model, state)
    ids = ids_of(2, 2, 3, 5)
    mutations(model, lambda c: transformers.BertModel(c, add_pooling_layer=False), ids[1], mean_of)
    texts = {t: tok(t, truncation=True, max_length=76)["input_ids"] for t in TEXTS + ["y " * 100]}
    write(ROOT / "encoders" / "enc-bert.json", {
        "architecture": "bert", "files": {"enc-bert": "safetensors F16", "enc-bert.gguf": "GGUF F16"},
        "tolerance": TOLERANCE, "ids": [{"ids": i, "dense": rounded(mean_of(model, i))} for i in ids],
        "texts": [{"text": t, "as": None, "dense": rounded(mean_of(model, i))} for t, i in texts.items()]
        + [{"text": "two words", "as": a, "dense": rounded(mean_of(model, tok(p + "two words")["input_ids"]))}
           for a, p in (("query", "ask: "), ("passage", "text: "))]})


def make_m3():
    print("enc-m3")
    cfg = config(transformers.XLMRobertaConfig, num_hidden_layers=1, max_position_embeddings=POSITIONS + 2,
                 type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5)
    model = randomise(transformers.XLMRobertaModel(cfg, add_pooling_layer=False), 3)
    state, path = stored(model, torch.float16), folder("enc-m3")
    torch.save(state, path / "pytorch_model.bin")
    save_config(path, cfg, "XLMRobertaModel")
    sparse, colbert = torch.nn.Linear(N, 1), torch.nn.Linear(N, N)
    randomise(sparse, 4)
    randomise(colbert, 5)
    torch.save(sparse.state_dict(), path / "sparse_linear.pt")
    torch.save({k: v.to(torch.float16) for k, v in stored(colbert, torch.float16).items()},
               path / "colbert_linear.pt")
    rows = []
    for ids in ids_of(6, 0, 2, 4):
        h = hidden(model, ids)
        with torch.no_grad():
            weight, vectors = torch.relu(sparse(h))[:, 0], colbert(h[1:])
        best = {}
        for i, w in zip(ids, weight.tolist()):
            if w > 0:
                best[i] = max(w, best.get(i, 0.0))
        row = {"ids": ids, "dense": rounded(unit(h[0])),
               "sparse": {str(i): float(f"{w:.7g}") for i, w in sorted(best.items())}}
        if len(ids) < 20:
            row["colbert"] = [rounded(v) for v in unit(vectors)]
        rows.append(row)
    mutations(model, lambda c: transformers.XLMRobertaModel(c, add_pooling_layer=False), rows[1]["ids"],
              lambda m, i: unit(hidden(m, i)[0]))
    write(ROOT / "encoders" / "enc-m3.json",
          {"architecture": "xlm-roberta", "files": {"enc-m3": "PyTorch F16, heads F32 and F16"},
           "tolerance": TOLERANCE, "ids": rows})


@torch.no_grad()
def logit(model, ids, types=None):
    kind = None if types is None else torch.tensor([types])
    return model(torch.tensor([ids]), token_type_ids=kind).logits[0].numpy()


def make_reranker():
    print("enc-reranker")
    cfg = config(transformers.XLMRobertaConfig, num_hidden_layers=1, max_position_embeddings=POSITIONS + 2,
                 type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5, hidden_act="relu", num_labels=1)
    model = randomise(transformers.XLMRobertaForSequenceClassification(cfg), 7)
    path = folder("enc-reranker")
    save_file(stored(model, torch.float16), path / "model.safetensors")
    save_config(path, cfg, "XLMRobertaForSequenceClassification")
    ids = ids_of(8, 0, 2, 4)
    mutations(model, transformers.XLMRobertaForSequenceClassification, ids[1], logit)
    write(ROOT / "encoders" / "enc-reranker.json",
          {"architecture": "xlm-roberta", "files": {"enc-reranker": "safetensors F16"}, "tolerance": TOLERANCE,
           "ids": [{"ids": i, "logit": rounded(logit(model, i))[0]} for i in ids]})


def make_cross():
    print("enc-cross")
    cfg = config(transformers.BertConfig, num_hidden_layers=1, max_position_embeddings=64, hidden_act="gelu_new",
                 num_labels=1)
    model = randomise(transformers.BertForSequenceClassification(cfg), 9)
    path = folder("enc-cross")
    save_file(stored(model, torch.bfloat16), path / "model.safetensors")
    save_config(path, cfg, "BertForSequenceClassification")
    tok = tokenizer(path, 64)
    rows = []
    for q, d in PAIRS:
        e = tok([(q, d)], truncation="longest_first", max_length=64, return_token_type_ids=True)
        rows.append({"pair": [q, d],
                     "logit": rounded(logit(model, e["input_ids"][0], e["token_type_ids"][0]))[0]})
    e = tok(*PAIRS[0], return_token_type_ids=True)
    seen("no token types", logit(model, e["input_ids"], e["token_type_ids"]),
         logit(model, e["input_ids"], [0] * len(e["input_ids"])))
    write(ROOT / "encoders" / "enc-cross.json",
          {"architecture": "bert", "files": {"enc-cross": "safetensors BF16"}, "tolerance": TOLERANCE, "pairs": rows})


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    make_bert()
    make_m3()
    make_reranker()
    make_cross()


if __name__ == "__main__":
    main()
