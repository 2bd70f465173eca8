#!/usr/bin/env bash
# Fuzzes every parser for MINUTES of processor time in all (default: an hour), as many at once as there are cores, and
# writes what was run to FILE. On a machine that others use too, a run goes on until its processor time is spent, at most
# ten times as long by the clock; the table says what each had. Inputs that fail are left in build/fuzz-long.
#   bench/fuzz.sh [MINUTES] [FILE]
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:-60} out=${2:-bench/results/fuzz.md}
cmake --preset fuzz >/dev/null && cmake --build build/fuzz >/dev/null
mkdir -p build/fuzz-long
mapfile -t targets < <(find build/fuzz -maxdepth 1 -name 'fuzz_*' -type f -executable -printf '%f\n' | sort)
seconds=$((minutes * 60 / ${#targets[@]}))
# A timeout counts the clock, so it is long: what hangs hangs for a minute too.
run() {
    build/fuzz/"$1" "build/fuzz-long/$1" "tests/fuzz/corpus/${1#fuzz_}" -max_total_time="$2" -timeout=60 \
        -rss_limit_mb=2048 -verbosity=0 -artifact_prefix=build/fuzz-long/ -print_final_stats=1 \
        >>"build/fuzz-long/$1.log" 2>&1
}
# A row of the table: target, processor seconds, inputs, result.
one() {
    local used=0 result=fine began=$SECONDS TIMEFORMAT='%U %S'
    local log=build/fuzz-long/$1.log
    mkdir -p "build/fuzz-long/$1" && : >"$log"
    while [ "$used" -lt "$2" ] && [ $((SECONDS - began)) -lt $((10 * $2)) ]; do
        local left=$(($2 - used))
        { time run "$1" "$left" || result=FAILED; } 2>"$log.time"
        used=$((used + $(awk '{ printf "%d", $1 + $2 + 0.5 }' "$log.time")))
        [ $result = fine ] || break
    done
    echo "| $1 | $used | $(awk '/^stat::number_of_executed_units/ { n += $2 } END { print n + 0 }' "$log") | $result |"
}
export -f run one
{
    printf '# Fuzzing\n\n%s; %s of processor time wanted, with address and undefined-behaviour checks; `bench/fuzz.sh %s`.\n\n' \
        "$(date +%F)" "$minutes minutes" "$minutes"
    printf '| target | processor seconds | inputs | result |\n| --- | --- | --- | --- |\n'
    printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c "one {} $seconds"
} >"$out"
cat "$out"
! grep -q FAILED "$out"
