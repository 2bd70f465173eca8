#!/usr/bin/env python3
"""Adds the encoders' tokenizers to tests/golden/tokens, and makes two tiny ones.

    python tools/golden/make_encoder_tokens.py MODELS [--qa FOLDER]

MODELS is where `holdfast pull` puts e5-small and minilm. The references are the `tokenizers` library: on
MiniLM's own tokenizer.json; on a Unigram model of the pieces, scores and normaliser in e5-small's GGUF
file. Everything is plain text: added tokens are taken out, and control pieces of the
Unigram model match nothing. The tiny tokenizers are the pieces of the real ones (MIT, Apache-2.0) that the nasty
strings touch, as tokenizer.json and as GGUF, so that the test runs without any model. Needs tokenizers and gguf.
"""
import argparse
import json
import pathlib
import re
import struct

import gguf
from tokenizers import Tokenizer, models, pre_tokenizers

import gguf_header
from make_token_goldens import CHUNK, OUT, digest, qa_strings, write_lines

E5, MINILM = "multilingual-e5-small-q4_0.gguf", "all-minilm-l6-v2"
NORMAL, UNKNOWN, CONTROL = 1, 2, 3


def charsmap_table(data):
    """The single code points that a precompiled_charsmap replaces, read from its double array."""
    n = struct.unpack_from("<I", data)[0]
    unit, text = struct.unpack_from(f"<{n // 4}I", data, 4), data[4 + n:]
    offset = lambda u: (u >> 10) << ((u & 512) >> 6)
    out = {}
    for code in range(1, 0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        at, found = offset(unit[0]), False
        for c in chr(code).encode():
            at ^= c
            found = False
            if at >= len(unit) or unit[at] & 0x800000FF != c:
                break
            u, at = unit[at], at ^ offset(unit[at])
            found = bool(u >> 8 & 1)
        else:
            if found:
                begin = unit[at] & 0x7FFFFFFF
                out[code] = text[begin:text.index(b"\0", begin)].decode()
    return out


class Unigram:
    """sentencepiece's way, as GGUF means it: charsmap, single spaces without ends, ▁ in front."""

    def __init__(self, pieces, scores, kinds, charsmap):
        # A control piece matches no text: it hides behind a character that texts lose.
        vocab = [(p if k == NORMAL else "\x00" + p, s) for p, s, k in zip(pieces, scores, kinds)]
        self.tok = Tokenizer(models.Unigram(vocab, unk_id=kinds.index(UNKNOWN), byte_fallback=False))
        self.tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
        self.table = charsmap_table(charsmap)

    def ids(self, text):
        text = re.sub(" {2,}", " ", text.translate(self.table)).strip(" ")
        return self.tok.encode(text, add_special_tokens=False).ids if text else []


class Plain:
    def __init__(self, data):
        data = dict(data, added_tokens=[], post_processor=None, truncation=None, padding=None)
        self.tok = Tokenizer.from_str(json.dumps(data))

    def ids(self, text):
        return self.tok.encode(text, add_special_tokens=False).ids


def e5_parts(path):
    kv = gguf_header.read(path)
    kinds = kv["tokenizer.ggml.token_type"]
    n = max(i for i, k in enumerate(kinds) if k in (NORMAL, CONTROL)) + 1
    return (kv["tokenizer.ggml.tokens"][:n], kv["tokenizer.ggml.scores"][:n], kinds[:n],
            bytes(kv["tokenizer.ggml.precompiled_charsmap"]))


def write_gguf(path, model, tokens, kinds, ids, scores=None, charsmap=None):
    w = gguf.GGUFWriter(path, "bert")
    w.add_tokenizer_model(model)
    w.add_token_list(tokens)
    w.add_token_types(kinds)
    if scores:
        w.add_token_scores(scores)
        w.add_add_space_prefix(True)
        w.add_remove_extra_whitespaces(True)
        w.add_precompiled_charsmap(charsmap)
        w.add_add_bos_token(True)
        w.add_add_eos_token(True)
        w.add_bos_token_id(ids[0])
        w.add_eos_token_id(ids[1])
    w.add_uint32("tokenizer.ggml.cls_token_id", ids[0])
    w.add_sep_token_id(ids[1])
    w.add_unk_token_id(ids[2])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def tiny_unigram(parts, real, strings):
    """tokenizer.json with Precompiled and Metaspace, and GGUF, of the pieces that the strings use or contain."""
    import base64
    pieces, scores, kinds, charsmap = parts
    used = {i for s in strings for i in real.ids(s)} | set(range(4)) | {len(pieces) - 1}
    used |= {i for i, p in enumerate(pieces) if len(p) == 1 and ord(p) < 0x250}
    keep = sorted(used)
    vocab = [[pieces[i], scores[i]] for i in keep]
    folder = OUT / "tiny-unigram"
    folder.mkdir(exist_ok=True)
    special = lambda i, t: {"id": i, "content": t, "single_word": False, "lstrip": t == "<mask>", "rstrip": False,
                            "normalized": False, "special": True}
    seq = lambda i: {"Sequence": {"id": i, "type_id": 0}}
    tag = lambda t: {"SpecialToken": {"id": t, "type_id": 0}}
    data = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [special(i, vocab[i][0]) for i in range(4)] + [special(len(vocab) - 1, "<mask>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()},
            {"type": "Strip", "strip_left": True, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": {
            "type": "TemplateProcessing", "single": [tag("<s>"), seq("A"), tag("</s>")],
            "pair": [tag("<s>"), seq("A"), tag("</s>"), tag("</s>"), seq("B"), tag("</s>")],
            "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for i, t in ((0, "<s>"), (2, "</s>"))}},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False},
    }
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n")
    hidden = json.loads(json.dumps(data))
    for entry in hidden["added_tokens"]:
        hidden["model"]["vocab"][entry["id"]][0] = "\x00" + entry["content"]
    tiny_kinds = [kinds[i] for i in keep]
    write_gguf(OUT / "tiny-unigram.gguf", "t5", [v[0] for v in vocab], tiny_kinds, (0, 2, 3), [v[1] for v in vocab],
               charsmap)
    return {"tiny_unigram_json": Plain(hidden),
            "tiny_unigram_gguf": Unigram([v[0] for v in vocab], [v[1] for v in vocab], tiny_kinds, charsmap)}


def tiny_wordpiece(data, real, strings):
    by_id = {i: t for t, i in data["model"]["vocab"].items()}
    used = {i for s in strings for i in real.ids(s)} | {0, 100, 101, 102, 103}
    keep = sorted(used | {i for i, t in by_id.items() if len(t.removeprefix("##")) == 1 and t.isascii()})
    tiny = json.loads(json.dumps(data))
    tiny["model"]["vocab"] = {by_id[i]: n for n, i in enumerate(keep)}
    tiny["truncation"] = tiny["padding"] = None
    for entry in tiny["added_tokens"]:
        entry["id"] = tiny["model"]["vocab"][entry["content"]]
    for entry in tiny["post_processor"]["special_tokens"].values():
        entry["ids"] = [tiny["model"]["vocab"][entry["id"]]]
    folder = OUT / "tiny-wordpiece"
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tiny, ensure_ascii=False, separators=(",", ":")) + "\n")
    vocab = tiny["model"]["vocab"]
    special = {e["content"] for e in tiny["added_tokens"]}
    tokens = [t if t in special else t[2:] if t.startswith("##") else "▁" + t for t in vocab]
    write_gguf(OUT / "tiny-wordpiece.gguf", "bert", tokens, [CONTROL if t in special else NORMAL for t in vocab],
               (vocab["[CLS]"], vocab["[SEP]"], vocab["[UNK]"]))
    return {"tiny_wordpiece": Plain(tiny)}


def pairs(path, out):
    """What the library's own template and truncation make of single texts and pairs."""
    tok = Tokenizer.from_str(path.read_text())
    rows = []
    texts = ("How many people live in Berlin?", "Berlin has 3,520,031 registered inhabitants.", "", "根据资料回答问题")
    for a in texts:
        for b in (None, *texts[:3]):
            for n in (0, 3, 4, 5, 6, 7, 9, 12, 512):
                tok.no_truncation()
                if n:
                    tok.enable_truncation(n, strategy="longest_first")
                if n and n < (tok.num_special_tokens_to_add(b is not None)):
                    continue  # the library has no rule where the template alone does not fit
                e = tok.encode(a, b) if b is not None else tok.encode(a)
                rows.append({"a": a, "b": b, "max": n, "ids": e.ids, "types": e.type_ids})
    write_lines(out, rows)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("models", type=pathlib.Path)
    p.add_argument("--qa", type=pathlib.Path)
    args = p.parse_args()
    strings = [json.loads(s) for s in (OUT / "nasty.jsonl").read_text().split("\n") if s]
    parts = e5_parts(args.models / E5)
    wordpiece = json.loads((args.models / MINILM / "tokenizer.json").read_text())
    real = {"e5_small": Unigram(*parts), "minilm": Plain(wordpiece)}
    toks = dict(real)
    toks |= tiny_unigram(parts, real["e5_small"], strings)
    toks |= tiny_wordpiece(wordpiece, real["minilm"], strings)
    for name, tok in toks.items():
        write_lines(OUT / f"{name}.ids.jsonl", [tok.ids(s) for s in strings])
    for name in ("tiny-unigram", "tiny-wordpiece"):
        pairs(OUT / name / "tokenizer.json", OUT / f"{name}.pairs.jsonl")
    if args.qa:
        sets = json.loads((OUT / "qa.digests.json").read_text())
        for path in sorted(args.qa.glob("*.json")):
            texts = qa_strings(path)
            for name, tok in real.items():
                rows = [tok.ids(s) for s in texts]
                sets[path.name][name] = {"ids": sum(map(len, rows)),
                                         "digests": [digest(rows[i:i + CHUNK]) for i in range(0, len(rows), CHUNK)]}
        (OUT / "qa.digests.json").write_text(json.dumps(sets, separators=(",", ":")).replace("},", "},\n") + "\n")


if __name__ == "__main__":
    main()
