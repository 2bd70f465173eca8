#!/usr/bin/env bash
# docs/models.md with the real models at all recorded texts; half an hour. Types need a Python with the `gguf` package.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 tools/models_table.py build/release/holdfast --long
