#!/usr/bin/env bash
# Warm starts of both real models, and their memory while 2,000 tokens are read; wants a quiet machine.
# bench/results/start.md has the figures beside earlier ones.
set -euo pipefail
cd "$(dirname "$0")/.."
models=${HOLDFAST_TEST_MODELS:-${HOLDFAST_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/holdfast}/models}
for size in 0.5b 1.5b; do
    python3 bench/start.py --runs 7 build/release/holdfast "$models/qwen2.5-coder-$size-instruct-q4_k_m.gguf"
done | tee bench/results/start.txt
HOLDFAST_LONG=1 python3 tests/system/test_loading.py build/release/holdfast test_memory_during_a_long_prompt | tee -a bench/results/start.txt
