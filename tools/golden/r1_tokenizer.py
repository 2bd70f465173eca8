#!/usr/bin/env python3
"""Makes DeepSeek-R1's tokenizer folder from DeepSeek-V3's.

    python3 tools/golden/r1_tokenizer.py V3_FOLDER R1_FOLDER

R1 shares V3's tokenizer except for two reserved entries, 128798 and 128799, which became <think> and </think>, and
for its chat template: history keeps what follows the last </think>, and the assistant's turn opens with <think> and
a newline. Standard library only.
"""
import json
import pathlib
import sys

RENAMED = {128798: "<think>", 128799: "</think>"}
CHANGES = (("{{'<｜Assistant｜>' + message['content'] + '<｜end▁of▁sentence｜>'}}",
            "{% set content = message['content'] %}{% if '</think>' in content %}"
            "{% set content = content.split('</think>')[-1] %}{% endif %}"
            "{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}"),
           ("{{'<｜Assistant｜>'}}{% endif %}", "{{'<｜Assistant｜><think>\\n'}}{% endif %}"))


def template(config):
    text = config["chat_template"]
    for old, new in CHANGES:
        if text.count(old) != 1:
            raise ValueError(f"the V3 template is not the one this was made for: {old!r}")
        text = text.replace(old, new)
    return text


def main():
    source, target = map(pathlib.Path, sys.argv[1:3])
    target.mkdir(parents=True, exist_ok=True)
    data = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    for token in data["added_tokens"]:
        if token["id"] in RENAMED:
            token.update(content=RENAMED[token["id"]], special=False)
    config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["chat_template"] = template(config)
    (target / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    (target / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
