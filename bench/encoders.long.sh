#!/usr/bin/env bash
# Encoders beside other engines; a quarter of an hour, wants a quiet machine and a Python (PYTHON) with numpy, gguf and
# onnxruntime.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" bench/encoders.py build/release/holdfast
