#!/usr/bin/env bash
# Measures how time and memory grow, fits the exponents, and writes bench/GROWTH.md. Ten minutes on two cores.
#
#     bench/growth.sh                 every work
#     bench/growth.sh lloyd label     the works that begin with these words; the others keep what was measured before
#     bench/growth.sh --quick         small sizes, a minute: whether everything runs; writes GROWTH_DIR/quick.md
#     bench/growth.sh --list          the works
#
# Environment:
#     THREADS       threads, where they are not what is varied; default 2
#     GROWTH_DIR    where measurements and inputs are kept; default target/growth
#
# Needs python3 alone. Nothing else should run meanwhile: the exponents are of wall-clock time.
set -euo pipefail
cd "$(dirname "$0")/.."

export THREADS="${THREADS:-2}" GROWTH_DIR="${GROWTH_DIR:-target/growth}"
exec python3 bench/growth.py "$@"
