#!/usr/bin/env bash
# An hour of fuzzing over all parsers.
set -euo pipefail
exec "$(dirname "$0")/fuzz.sh" 60
