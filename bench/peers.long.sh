#!/usr/bin/env bash
# Speed beside llama.cpp on both real files, turn by turn; wants a quiet machine.
set -euo pipefail
cd "$(dirname "$0")/.."
models=${HOLDFAST_TEST_MODELS:-${HOLDFAST_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/holdfast}/models}
for size in 1.5b 0.5b; do
    python3 bench/peer_llama.py build/release/holdfast "$models/qwen2.5-coder-$size-instruct-q4_k_m.gguf"
done
