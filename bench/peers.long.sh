#!/usr/bin/env bash
# Speed beside llama.cpp, every suite, turn by turn; hours, wants a quiet machine, 25 GB of disk for files of random
# weights and a Python with numpy (PYTHON). IK=DIR names a build of ik_llama.cpp to compare with too.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 bench/peers build/release/holdfast real types large moe batch context threads busy real-avx2 types-avx2 \
    --python "${PYTHON:-python3}" ${IK:+--ik "$IK"}
