#!/usr/bin/env bash
# The answers table and the handbook figures at their stated size; hours, resumes where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 bench/answers/handbook.py --models 1.5b,0.5b --out bench/results/handbook.md
python3 bench/answers/latency.py --model 1.5b --count 20 --out bench/results/latency.md
python3 bench/answers/answers.py --models 1.5b,0.5b --per-set 40 --out bench/results/answers.md
