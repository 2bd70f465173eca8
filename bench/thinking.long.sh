#!/usr/bin/env bash
# Thinking under control at its stated size: more than 50 questions per model, both languages; resumes where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build/bench-thinking
python3 bench/thinking.py --models 0.5b,1.5b --lines build/bench-thinking/lines --out bench/results/thinking.md
