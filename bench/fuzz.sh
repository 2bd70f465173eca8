#!/usr/bin/env bash
# Fuzzes every parser for MINUTES of processor time in all (default: an hour), as many at once as there are cores, and
# writes what was run to FILE. Inputs that fail are left in build/fuzz-long.
#   bench/fuzz.sh [MINUTES] [FILE]
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:-60} out=${2:-bench/results/fuzz.md}
cmake --preset fuzz >/dev/null && cmake --build build/fuzz >/dev/null
mkdir -p build/fuzz-long
mapfile -t targets < <(find build/fuzz -maxdepth 1 -name 'fuzz_*' -type f -executable -printf '%f\n' | sort)
seconds=$((minutes * 60 / ${#targets[@]}))
one() {
    local corpus=tests/fuzz/corpus/${1#fuzz_}
    mkdir -p "build/fuzz-long/$1"
    build/fuzz/"$1" "build/fuzz-long/$1" "$corpus" -max_total_time="$2" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
        -artifact_prefix=build/fuzz-long/ -print_final_stats=1 >"build/fuzz-long/$1.log" 2>&1 && echo fine || echo FAILED
}
export -f one
{
    printf '# Fuzzing\n\n%s; %s of processor time in all, with address and undefined-behaviour checks; `bench/fuzz.sh %s`.\n\n' \
        "$(date +%F)" "$minutes minutes" "$minutes"
    printf '| target | seconds | inputs | result |\n| --- | --- | --- | --- |\n'
    printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c \
        'r=$(one {} '"$seconds"'); n=$(sed -n "s/^stat::number_of_executed_units: *//p" build/fuzz-long/{}.log); echo "| {} | '"$seconds"' | ${n:-?} | $r |"'
} >"$out"
cat "$out"
! grep -q FAILED "$out"
