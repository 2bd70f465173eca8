#!/usr/bin/env bash
# Load on both real models, and 1,000 clients that vanish; wants a quiet machine. Results: bench/results/load-SIZE.json
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${HOLDFAST_BIN:-build/release/holdfast}
models=${HOLDFAST_TEST_MODELS:-${HOLDFAST_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/holdfast}/models}
HOLDFAST_VANISHING=1000 python3 tests/system/test_scheduling.py "$binary" test_vanishing_clients_leave_nothing_behind
for size in ${SIZES:-0.5b 1.5b}; do
    home=$(mktemp -d)
    "$binary" serve --json --port 0 --home "$home" -m "$models/qwen2.5-coder-$size-instruct-q4_k_m.gguf" > "$home/out" &
    server=$!
    trap 'kill $server; rm -rf "$home"' EXIT
    until [ -s "$home/out" ]; do sleep 0.2; done
    port=$(sed 's/.*"port":\([0-9]*\).*/\1/' "$home/out")
    python3 bench/load/load.py "http://127.0.0.1:$port" --second-turn 2000 --clients 1,16 --seconds "${LOAD_SECONDS:-30}" \
        --rate 0.5 | tee "bench/results/load-$size.json"
    kill $server
    wait $server || true
    rm -rf "$home"
    trap - EXIT
done
