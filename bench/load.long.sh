#!/usr/bin/env bash
# Load on both real models, and 1,000 clients that vanish; wants a quiet machine. Results: bench/results/load-SIZE.json,
# bench/results/load.md; LLAMA_SERVER=PATH adds the table beside that server.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${HOLDFAST_BIN:-build/release/holdfast}
models=${HOLDFAST_TEST_MODELS:-${HOLDFAST_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/holdfast}/models}
HOLDFAST_VANISHING=1000 python3 tests/system/test_scheduling.py "$binary" test_vanishing_clients_leave_nothing_behind
python3 bench/load/kv_trace.py "$binary" tests/golden/models/qwen2-untied.gguf --markdown bench/results/load.md
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
    if [ -n "${LLAMA_SERVER:-}" ]; then
        python3 bench/load/load.py --ours "$binary" --peer "$LLAMA_SERVER" --model "$models/qwen2.5-coder-$size-instruct-q4_k_m.gguf" \
            --rounds 3 --markdown bench/results/load.md > /dev/null
    fi
done
