"""Small byte-level BPE vocabularies for the tiny models.

256 byte tokens, a few dozen merges learned from a handful of sentences of our own, and the special
tokens of the family, so that the tiny models can be driven through the whole program.
"""
import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
)

SPECIALS = {
    "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "llama": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
              "<|eot_id|>"],
    "deepseek_v3": ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>",
                    "<think>", "</think>"],
}
BOS_EOS = {
    "qwen2": (None, "<|im_end|>"),
    "llama": ("<|begin_of_text|>", "<|eot_id|>"),
    "deepseek_v3": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
}
TEMPLATES = {
    "qwen2": ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
              "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"),
    "llama": ("{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + "
              "'<|end_header_id|>\\n\\n' + m['content'] + '<|eot_id|>' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"),
    "deepseek_v3": ("{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}"
                    "{% elif m['role'] == 'assistant' %}{{ '<｜Assistant｜>' + m['content'].split('</think>')[-1] + "
                    "'<｜end▁of▁sentence｜>' }}{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
                    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"),
}
PRE = {"qwen2": "qwen2", "llama": "llama-bpe", "deepseek_v3": "deepseek-v3"}

TEXT = ["the quick brown fox answers the question from the right passage of the document",
        "a small model that answers and then thinks again about the same thing in the end",
        "模型从文档里回答问题，问题的答案在文档里。", "def answer(question): return question + 1"]


def _pre_tokenizer(family):
    if family == "deepseek_v3":
        parts = [pre_tokenizers.Split(Regex(p), "isolated") for p in DEEPSEEK_V3]
    else:
        pattern = LLAMA3 if family == "llama" else QWEN2
        parts = [pre_tokenizers.Split(Regex(pattern), "isolated")]
    parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return pre_tokenizers.Sequence(parts)


def build(family, n_vocab):
    """A tokenizer whose ids are exactly 0 … n_vocab-1, the specials last."""
    specials = SPECIALS[family]
    tok = Tokenizer(models.BPE(ignore_merges=(family == "llama")))
    tok.pre_tokenizer = _pre_tokenizer(family)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=n_vocab - len(specials), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(TEXT, trainer)
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    assert tok.get_vocab_size() == n_vocab, (family, tok.get_vocab_size())
    return tok


def save(tok, family, folder):
    tok.save(str(folder / "tokenizer.json"), pretty=False)
    bos, eos = BOS_EOS[family]
    config = {"add_bos_token": bos is not None, "add_eos_token": False, "bos_token": bos, "eos_token": eos,
              "chat_template": TEMPLATES[family], "clean_up_tokenization_spaces": False,
              "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1) + "\n")


def add_to_gguf(writer, tok, family):
    data = json.loads(tok.to_str())
    n = tok.get_vocab_size()
    tokens = [tok.id_to_token(i) for i in range(n)]
    special = set(SPECIALS[family])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE[family])
    writer.add_token_list(tokens)
    writer.add_token_types([3 if t in special else 1 for t in tokens])
    merges = data["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    bos, eos = BOS_EOS[family]
    if bos:
        writer.add_bos_token_id(tokens.index(bos))
    writer.add_eos_token_id(tokens.index(eos))
    writer.add_add_bos_token(bos is not None)
    writer.add_chat_template(TEMPLATES[family])
