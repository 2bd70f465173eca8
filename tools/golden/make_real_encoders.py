#!/usr/bin/env python3
"""Records the vectors of two real encoders for a few sentences of our own.

    python tools/golden/make_real_encoders.py minilm FOLDER        all-MiniLM-L6-v2, by sentence-transformers
    python tools/golden/make_real_encoders.py e5-small E5-FILE     multilingual-e5-small, by transformers' BertModel on
                                                                   the decoded weights of the package's E5S1 file, ids by
                                                                   the tokenizers library's Unigram

Writes tests/golden/encoders/real-NAME.json.
"""
import json
import pathlib
import struct
import sys

import numpy as np
import torch

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "encoders"
TEXTS = [
    ("Full-time employees get 25 days of annual leave; unused days expire at the end of March.", "passage"),
    ("全职员工每年享有 25 天年假，未使用的天数于三月底失效。", "passage"),
    ("How many days of annual leave do I get?", "query"), ("年假有多少天？", "query"),
    ("Ünïcode, “quotes”, ＡＢＣ and e=mc² — naïve café", None), ("x", None), ("   spaces   around   ", None),
    ("The pump's inlet valve must be closed before the filter is changed. " * 40, "passage"),
]


def rounded(v):
    return [float(f"{x:.7g}") for x in np.asarray(v, np.float64)]


def minilm(path):
    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer(path, device="cpu")
    return [model.encode([text])[0] for text, _ in TEXTS]


class E5:
    """The file as real-models' description has it: magic E5S1, shape, tokenizer, tensors."""

    def __init__(self, path):
        self.data, self.at = pathlib.Path(path).read_bytes(), 8
        self.hidden, self.layers, self.heads, self.ff, self.vocab, self.positions, self.types = self.take("7i")
        self.eps, = self.take("f")
        self.take("i")
        n, self.bos, self.eos, _, self.unk = self.take("5i")
        n_blob, = self.take("Q")
        offsets, scores = self.take(f"{n + 1}I"), self.take(f"{n}f")
        blob = self.bytes(n_blob)
        self.pieces = [(blob[offsets[i]:offsets[i + 1]].decode(errors="replace"), float(scores[i])) for i in range(n)]
        self.norm = self.read_norm()
        self.tensors = dict(self.read_tensor() for _ in range(self.take("i")[0]))

    def take(self, form):
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def bytes(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def read_norm(self):
        n, size = self.take("i")[0], self.take("I")[0]
        end, out = self.at + size, {}
        for _ in range(n):
            code, count = self.take("I")[0], self.take("B")[0]
            out[code] = "".join(map(chr, self.take(f"{count}I")))
        self.at = end
        return out

    def read_tensor(self):
        name = self.bytes(self.take("H")[0]).decode()
        kind, n, offset, size = self.take("B")[0], self.take("I")[0], *self.take("QQ")
        raw = self.data[offset:offset + size]
        if kind != 1:
            return name, np.frombuffer(raw, np.float32)[:n]
        q = np.frombuffer(raw, np.uint8).reshape(-1, 18)  # Q4_0: f16 scale, 16 bytes of two nibbles
        scale = q[:, :2].copy().view(np.float16).astype(np.float32)
        nibbles = np.concatenate([q[:, 2:] & 15, q[:, 2:] >> 4], axis=1).astype(np.float32) - 8
        return name, (nibbles * scale).reshape(-1)[:n]

    def ids(self, text):
        from tokenizers import Tokenizer, models
        text = "".join(self.norm.get(ord(c), c) for c in text)
        text = "▁" + "▁".join(text.split())
        found = Tokenizer(models.Unigram(self.pieces, self.unk, False)).encode(text, add_special_tokens=False).ids
        return [self.bos] + found[:self.positions - 2] + [self.eos]

    def model(self):
        from transformers import BertConfig, BertModel
        m = BertModel(BertConfig(vocab_size=self.vocab, hidden_size=self.hidden, num_hidden_layers=self.layers,
                                 num_attention_heads=self.heads, intermediate_size=self.ff,
                                 max_position_embeddings=self.positions, type_vocab_size=self.types,
                                 layer_norm_eps=self.eps, hidden_act="gelu"), add_pooling_layer=False).eval()
        names = {"emb.word": "word_embeddings.weight", "emb.pos": "position_embeddings.weight",
                 "emb.type": "token_type_embeddings.weight", "emb.ln.w": "LayerNorm.weight",
                 "emb.ln.b": "LayerNorm.bias"}
        parts = {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
                 "ao": "attention.output.dense", "fi": "intermediate.dense", "fo": "output.dense",
                 "aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}
        state = {"embeddings." + v: self.tensors[k] for k, v in names.items()}
        for i in range(self.layers):
            for k, v in parts.items():
                state[f"encoder.layer.{i}.{v}.weight"] = self.tensors[f"l{i}.{k}.w"]
                state[f"encoder.layer.{i}.{v}.bias"] = self.tensors[f"l{i}.{k}.b"]
        shapes = m.state_dict()
        m.load_state_dict({k: torch.tensor(v.copy()).reshape(shapes[k].shape) for k, v in state.items()}, strict=False)
        return m


@torch.no_grad()
def e5(path):
    file = E5(path)
    model, out = file.model(), []
    for text, kind in TEXTS:
        ids = file.ids((kind + ": " if kind else "") + text)
        mean = model(torch.tensor([ids])).last_hidden_state[0].mean(0)
        out.append((mean / mean.norm()).numpy())
    return out


def main():
    name, path = sys.argv[1:]
    vectors = {"minilm": minilm, "e5-small": e5}[name](path)
    rows = [{"text": t, "as": k, "dense": rounded(v)} for (t, k), v in zip(TEXTS, vectors)]
    (OUT / f"real-{name}.json").write_text(json.dumps({"texts": rows}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
