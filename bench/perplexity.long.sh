#!/usr/bin/env bash
# Perplexity of every path against the reference kernels on both real files; an hour.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 bench/perplexity.py build/release/holdfast -n 1024
