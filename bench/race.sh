#!/usr/bin/env bash
# Races dacpipe against the Python that does the same work, side by side, and writes bench/RESULTS.md.
#
#     bench/race.sh                      every line
#     bench/race.sh train lloyd-100      the lines that begin with these words
#     bench/race.sh --list               the lines
#
# Environment:
#     DATA          directory with mnist.parquet (columns split, label, pixels: 784 numbers) and hapt/ (UCI 341 in its
#                   own layout). Without it, lines that need MNIST are left out and HAPT is the simulated example set.
#     PEERS_VENV    Python environment of the peers, made if it is not there (about 6 GB, most of it torch);
#                   default ~/.cache/peers
#     PAIRS         pairs of runs, theirs and ours in turn; default 5
#     THREADS       threads on both sides; default 2
#     RECORDINGS    recordings that the line "features" reads; default 4
#     RACE_DIR      where inputs and measurements are kept; default target/race
#
# The first call builds the dependencies once more (about 20 minutes on two cores): what only tests and benches use
# switches on features of crates that the command is built without.
#
# Measurements of earlier calls stay in RACE_DIR/runs.jsonl, so lines can be raced one at a time; a line that is raced
# again replaces its own.
set -euo pipefail
cd "$(dirname "$0")/.."

export PEERS_VENV="${PEERS_VENV:-$HOME/.cache/peers}"
export THREADS="${THREADS:-2}" PAIRS="${PAIRS:-5}" RECORDINGS="${RECORDINGS:-4}" RACE_DIR="${RACE_DIR:-target/race}"
python="$PEERS_VENV/bin/python"

if [[ ! -x "$python" ]]; then
    echo "making the peers' Python environment in $PEERS_VENV" >&2
    python3 -m venv "$PEERS_VENV"
fi
if ! "$python" -c 'import deltalake, numpy, pyarrow, river, safetensors, scipy, sklearn, torch, umap' 2>/dev/null; then
    "$PEERS_VENV/bin/pip" install --quiet numpy scipy scikit-learn pyarrow deltalake river safetensors torch umap-learn
fi
if [[ -z "${DATA:-}" ]]; then
    echo "DATA is not set: lines that need MNIST are left out, HAPT is the simulated example set" >&2
fi

exec "$python" bench/race.py "$@"
