#!/usr/bin/env python3
"""Makes tests/golden/tokens: nasty strings, and the ids that the reference tokenizers give.

    python tools/golden/make_token_goldens.py TOKENIZERS [--r1-qwen FILE.gguf] [--smollm FILE.gguf] [--gguf FILE.gguf]…
        [--qa FOLDER]

TOKENIZERS holds deepseek_v3/, qwen2_5/ and llama3_1/ with their tokenizer.json (tools/golden/fetch_tokenizers.sh
brings them). The reference is the `tokenizers` library on these files with all added tokens taken out, so that
every string is plain text. `--r1-qwen` gives the vocabulary of R1-Distill-Qwen (the header of a GGUF file is
enough), `--smollm` that of SmolLM2. `--gguf` files are checked to hold the same vocabulary as qwen2_5. `--qa` is the
folder of reading comprehension sets; of its texts only a digest of the ids is kept, one for every 50 strings.
"""
import argparse
import hashlib
import json
import pathlib

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

import gguf_header
import nasty
import tiny_tokenizer

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "tokens"
NAMES = ("deepseek_v3", "qwen2_5", "llama3_1")
CHUNK = 50


def plain(path):
    """The tokenizer without its added tokens and without anything it adds around a text."""
    data = json.loads(pathlib.Path(path).read_text())
    data["added_tokens"], data["post_processor"] = [], None
    return Tokenizer.from_str(json.dumps(data))


def plain_from_gguf(path):
    """The rules of `tokenizer.ggml.pre` on a GGUF file's own vocabulary; ordinary tokens only."""
    kv = gguf_header.read(path)
    kinds, tokens = kv["tokenizer.ggml.token_type"], kv["tokenizer.ggml.tokens"]
    vocab = {t: i for i, t in enumerate(tokens) if kinds[i] == 1}
    tok = Tokenizer(models.BPE(vocab, [tuple(m.split(" ", 1)) for m in kv["tokenizer.ggml.merges"]]))
    if kv["tokenizer.ggml.pre"] == "smollm":  # as in the model's own tokenizer.json
        tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                     pre_tokenizers.ByteLevel(add_prefix_space=False)])
        tok.decoder = decoders.ByteLevel()
        return tok
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(tiny_tokenizer.QWEN2), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    return tok


def qa_strings(path):
    """Every context, question and answer of a set in SQuAD's layout, each once, in order of appearance."""
    out = {}
    for article in json.loads(pathlib.Path(path).read_text())["data"]:
        for paragraph in article["paragraphs"]:
            out[paragraph["context"]] = None
            for qa in paragraph["qas"]:
                out[qa["question"]] = None
                for answer in qa["answers"]:
                    out[answer["text"]] = None
    return list(out)


def digest(rows):
    return hashlib.sha256("\n".join(",".join(map(str, r)) for r in rows).encode()).hexdigest()[:12]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n" for r in rows))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("tokenizers", type=pathlib.Path)
    p.add_argument("--r1-qwen")
    p.add_argument("--smollm")
    p.add_argument("--gguf", action="append", default=[])
    p.add_argument("--qa", type=pathlib.Path)
    args = p.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    strings = nasty.strings()
    write_lines(OUT / "nasty.jsonl", strings)
    toks = {n: plain(args.tokenizers / n / "tokenizer.json") for n in NAMES}
    if args.r1_qwen:
        toks["deepseek_r1_qwen"] = plain_from_gguf(args.r1_qwen)
    if args.smollm:
        toks["smollm"] = plain_from_gguf(args.smollm)
    for name, tok in toks.items():
        rows = [e.ids for e in tok.encode_batch(strings, add_special_tokens=False)]
        back = sum(tok.decode(r, skip_special_tokens=False) != s for r, s in zip(rows, strings))
        write_lines(OUT / f"{name}.ids.jsonl", rows)
        print(f"{name}: {len(strings)} strings, {sum(map(len, rows))} ids, {back} not restored by decoding")
    for path in args.gguf:
        tok = plain_from_gguf(path)
        same = sum(tok.encode(s).ids == toks["qwen2_5"].encode(s, add_special_tokens=False).ids for s in strings)
        print(f"{path}: {same} of {len(strings)} as qwen2_5")
        assert same == len(strings)
    if args.qa:
        sets = {}
        for path in sorted(args.qa.glob("*.json")):
            texts = qa_strings(path)
            sets[path.name] = {"strings": len(texts), "chunk": CHUNK}
            for name, tok in toks.items():
                rows = [e.ids for e in tok.encode_batch(texts, add_special_tokens=False)]
                sets[path.name][name] = {"ids": sum(map(len, rows)),
                                         "digests": [digest(rows[i:i + CHUNK]) for i in range(0, len(rows), CHUNK)]}
            print(path.name, len(texts), "strings")
        (OUT / "qa.digests.json").write_text(json.dumps(sets, separators=(",", ":")).replace("},", "},\n") + "\n")


if __name__ == "__main__":
    main()
