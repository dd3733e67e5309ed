#!/usr/bin/env bash
# Tests and races dacpipe on an NVIDIA GPU. Building needs the CUDA toolkit and no GPU; running needs a GPU and no toolkit.
#
#     bench/gpu.sh pack [FOLDER]     builds the tests and the bench with the feature cuda and packs them (here)
#     bench/gpu.sh run [FOLDER]      runs what was packed, at most ten minutes (on the machine with the GPU)
#
# FOLDER is target/gpu by default, and at most 60 MiB when it is packed. Running asks nothing of a network: the rows are made
# up, and CUDA's libraries are those of the driver, of a toolkit in /usr/local, or of PyTorch's packages. What is measured
# comes out on standard output and in $OUT/results.txt (FOLDER/results.txt without OUT).
#
# Environment for pack:  CUDA_HOME      the toolkit
#                        PEER           train_step.py, which races PyTorch; default ../shared/peers/train_step.py
# Environment for run:   PYTHON         a Python with PyTorch; default python3
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
what=${1:-run}
folder=${2:-$here/target/gpu}
networks="561,256,128,64,32,16,12,10 784,512,256,128,64,32,16,10"

pack() {
    mkdir -p "$folder"
    cd "$here"
    local target=${CARGO_TARGET_DIR:-target}
    # Optimised, as the race is about speed, and without symbols.
    export CARGO_PROFILE_RELEASE_STRIP=true CARGO_PROFILE_BENCH_STRIP=true CARGO_PROFILE_BENCH_DEBUG=false
    cargo test --release --features cuda --lib --no-run --message-format json >"$folder/built.json"
    cargo bench --features cuda --bench gpu --no-run --message-format json >>"$folder/built.json"
    python3 - "$folder" <<'PYTHON'
import json, lzma, pathlib, sys
folder = pathlib.Path(sys.argv[1])
wanted = {("dacpipe", "lib"): "unit", ("gpu", "bench"): "gpu"}
for line in (folder / "built.json").read_text().splitlines():
    made = json.loads(line)
    if made.get("executable") and (name := wanted.get((made["target"]["name"], made["target"]["kind"][0]))):
        (folder / f"{name}.xz").write_bytes(lzma.compress(pathlib.Path(made["executable"]).read_bytes(), preset=9))
(folder / "built.json").unlink()
PYTHON
    cp "$0" "${PEER:-../shared/peers/train_step.py}" "$folder/"
    local size
    size=$(du -sm "$folder" | cut -f1)
    echo "packed $size MiB into $folder ($target)"
    [ "$size" -le 60 ] || { echo "more than 60 MiB" >&2; exit 1; }
}

# Folders with CUDA's libraries: a toolkit's, the driver's, PyTorch's packages'.
libraries() {
    local python=$1
    ls -d /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib /usr/local/nvidia/lib64 2>/dev/null || true
    "$python" - 2>/dev/null <<'PYTHON' || true
import glob, importlib.util, os
spec = importlib.util.find_spec("torch")
if spec and spec.origin:
    site = os.path.dirname(os.path.dirname(spec.origin))
    print("\n".join(glob.glob(site + "/nvidia/*/lib") + glob.glob(site + "/nvidia/cu*/lib") + [site + "/torch/lib"]))
PYTHON
}

run() {
    local python=${PYTHON:-python3} out
    work=$(mktemp -d) # not local: it is removed at the end
    trap 'rm -rf "$work"' EXIT
    out=${OUT:-$folder}/results.txt
    exec > >(tee "$out") 2>&1
    for name in unit gpu; do
        "$python" -c "import lzma,sys;open(sys.argv[2],'wb').write(lzma.open(sys.argv[1]).read())" "$folder/$name.xz" "$work/$name"
        chmod +x "$work/$name"
    done
    LD_LIBRARY_PATH=$(libraries "$python" | paste -sd:)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH DACPIPE_TEST_CUDA=0 DACPIPE_KERNELS=$work/kernels
    echo "== card"
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
    ldd "$work/gpu" | grep -E 'not found|nvrtc|cublas|curand|libcuda' || true

    echo "== kernels, trainer, k-means, formulas and methods on the card"
    timeout 150 "$work/unit" cuda:: device::gpu device::candle network::formula loss::hardening train::device_tests \
        --test-threads 1 2>&1 | tail -60 || true

    echo "== compute-sanitizer"
    local sanitizer
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -1 || true)
    if [ -n "$sanitizer" ]; then
        for tool in memcheck racecheck; do
            timeout 40 "$sanitizer" --tool "$tool" --error-exitcode 9 "$work/unit" cuda::tests --test-threads 1 2>&1 | tail -8 || true
        done
    else
        echo "not on this machine"
    fi

    echo "== race"
    for network in $networks; do
        for pair in 1 2 3; do
            timeout 15 "$work/gpu" cuda "$network" || true
            timeout 20 "$python" "$folder/train_step.py" --device cuda --dims "$network" --epochs 20 --modes eager,fused,graph || true
        done
        # Compiling takes most of it, so once.
        timeout 45 "$python" "$folder/train_step.py" --device cuda --dims "$network" --epochs 20 --modes compile || true
    done
    echo "== end"
}

case $what in
    pack) pack ;;
    run) run ;;
    *) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
