#!/usr/bin/env bash
# Log-probabilities of the real models at all recorded positions; half an hour.
set -euo pipefail
cd "$(dirname "$0")/.."
models=${HOLDFAST_TEST_MODELS:-${HOLDFAST_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/holdfast}/models}
for size in 0.5b 1.5b; do
    python3 tests/golden/check_real.py build/release/holdfast \
        "$models/qwen2.5-coder-$size-instruct-q4_k_m.gguf"
done | tee bench/results/real-models.txt
