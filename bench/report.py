"""From measurements to RESULTS.md: medians, ratios pair by pair, floors, and whether both sides did the same."""
import json
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from statistics import median

RESULTS = Path("bench/RESULTS.md")
NOTES = Path("bench/NOTES.md")

# The work of a line, its aims as ratios to the peers in their order, and its tolerance where not 1e-3.
WORK = {
    "train-561": "train 561-256-128-64-32-16-12-10 and its mirror, batch 256",
    "train-784": "train 784-512-256-128-64-32-16-10 and its mirror, batch 256",
    "encode-561": "encode 561-…-10, batches of 8 192",
    "encode-784": "encode 784-…-10, batches of 8 192",
    "features": "561 features from recordings (text included)",
    "weights": "equation 5: all 60 000 rows of MNIST against 1 000",
    "lloyd-10": "Lloyd, n = 1e6, d = 10, k = 10",
    "lloyd-100": "Lloyd, n = 1e6, d = 10, k = 100",
    "lloyd-mnist": "Lloyd, MNIST raw, k = 10, until no label changes",
    "minibatch": "mini-batch k-means, n = 1e6, d = 10, k = 100, batches of 4 096",
    "online-10": "online k-means, n = 1e6, d = 10, k = 12, batches of 4 096",
    "online-561": "online k-means, n = 1e6, d = 561, k = 12, batches of 4 096",
    "manifold-hapt": "UMAP of HAPT's 7 767 training windows, 561 features to 10 coordinates",
    "manifold-mnist": "UMAP of MNIST's 60 000 training rows, 784 pixels to 10 coordinates",
    "method-dense": "784-500-500-2000-10 and its mirror, reconstruction + hardening, batch 256",
    "method-conv": "conv 32-5x5/2, 64-5x5/2, 128-3x3/2, dense 10 and its mirror, batch 256",
    "label": "label a Parquet table, MNIST repeated to 1e6 rows",
    "stream": "100 Parquet files of 10 000 rows, one commit each, centroids move",
    "hapt": "raw HAPT text to labelled table, 200 epochs",
}
AIMS = {
    "train-561": [2.5, 1.9, 1.5],
    "train-784": [1.5, 1.3, 1.2],
    "encode-561": [1.4],
    "encode-784": [1.05],
    "features": [1000],
    "weights": [10],
    "lloyd-10": [2],
    "lloyd-100": [2],
    "lloyd-mnist": [2],
    "minibatch": [3],
    "online-10": [2],
    "online-561": [1.2],
    "manifold-hapt": [5, 2],
    "manifold-mnist": [5, 2],
    "method-dense": [1.3],
    "method-conv": [1.2],
    "label": [2.5],
    "stream": [10, 10],
    "hapt": [10],
}
# Lines whose ratio is one of seconds for the whole work: the rows that they visit differ.
BY_SECONDS = {"weights", "minibatch"}

RULES = """\
## How it was counted

- Ours and theirs run in turn, in separate processes, in one sitting; a ratio is taken within each pair, and the median
  of the ratios is quoted. Absolute times are medians and mean little on a shared machine.
- The same threads on both sides, the same rows, the same initial parameters or centroids, the same order of batches.
  Inputs that both read are written once by `bench/peers/prepare.py`.
- Useful flops only: two for each weight and row in forward, in the weight gradient, and in the input gradient except for
  the first layer; two for each value and centroid in k-means. Activations, losses, Adam, packing and bounds count as
  nothing, so a share of the peak below 1 includes them.
- Training: one epoch to warm up (and to compile), then five timed; the mean loss of the last one must agree within
  1e-3. Both minimise the weighted squared error plus 1e-5 times the sum of squared parameters, by Adam.
- Lloyd: from given centroids until no label changes or the same limit of iterations; the inertia must agree within 1e-4
  and the iterations within one. Rows count once an iteration.
- Mini-batch k-means: one seeding over three batches, batches until ten in a row bring no progress, one pass to label.
  Each side draws its own batches, another seed in each pair, so the ratio is that of the seconds of the whole fit, and
  the inertia over all rows need agree within 3 % only.
- Online k-means: every batch once, in order, from given centroids without rows and without decay, as `partial_fit` does on
  both sides; rows of 561 values are a quarter of a million, four times over. No cluster is moved elsewhere. The inertia of
  the rows about the last centroids must agree within 1e-3.
- "features" reads text, filters and computes on both sides. "label" and "hapt": ours is the whole command including its
  start; theirs is timed inside, without imports. Both use the model that ours saved, so cluster sizes must agree
  (within 1e-4 of the rows). "hapt" trains on each side's own initial parameters: the rows must agree.
- "UMAP": neighbours, fuzzy graph, spectral start and layout (20 neighbours, min_dist 0, 500 epochs up to 10 000 rows and
  200 beyond) from the same rows, theirs after a first call that compiles. The trustworthiness of 2 000 rows must agree
  within 1 %; both sides' adjusted Rand index of k-means on the coordinates is kept in runs.jsonl.
- "equation 5": ours takes all 60 000 rows exactly, theirs a sample of 1 000 pair by pair; the ratio is that of the
  seconds. On the sample both must give the same sum of weights within 1e-6.
- Floors: the larger of both sides' square matrix product (2 048) and reading speed over half a GiB, best of seven and of
  all sittings that RACE_DIR remembers. The peak share is useful flops a second over that product's.
"""
TOLERANCE = {"loss": 1e-3, "inertia": 1e-4, "weight sum of the sample": 1e-6, "windows": 0, "rows": 0}


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def tolerance(name):
    stated = re.search(r"\(([\d.e-]+)( %)?\)", name)
    if stated:
        return float(stated[1]) / (100 if stated[2] else 1)
    return TOLERANCE.get(name, 1e-3)


def agree(name, ours, theirs):
    if name == "iterations":
        return abs(ours - theirs) <= 1
    if isinstance(ours, list):
        allowed = tolerance(name) * sum(theirs)
        return len(ours) == len(theirs) and all(abs(a - b) <= allowed for a, b in zip(ours, theirs))
    return abs(ours - theirs) <= tolerance(name) * abs(theirs)


def checked(ours, theirs):
    """Whether all that both report agrees, in words."""
    shared = [name for name in theirs["check"] if name in ours["check"]]
    if not shared:
        return "nothing shared"
    bad = [name for name in shared if not agree(name, ours["check"][name], theirs["check"][name])]
    return "no: " + ", ".join(f"{n} {ours['check'][n]} / {theirs['check'][n]}" for n in bad) if bad else "yes"


def amount(value):
    return f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:.3g}"


def rows_of(line, runs, peak):
    """A row of the table for each peer of the line."""
    pairs = sorted({r["pair"] for r in runs})
    own = {r["pair"]: r for r in runs if r["peer"].startswith("dacpipe")}
    peers = list(dict.fromkeys(r["peer"] for r in runs if not r["peer"].startswith("dacpipe")))
    lines = []
    for i, peer in enumerate(peers):
        other = {r["pair"]: r for r in runs if r["peer"] == peer}
        both = [p for p in pairs if p in own and p in other]
        if not both:
            continue
        key = "seconds" if line in BY_SECONDS else "rows_per_second"
        ratio = [own[p][key] / other[p][key] for p in both]
        ratio = median(1 / r for r in ratio) if line in BY_SECONDS else median(ratio)
        speed = [median(s[p]["rows_per_second"] for p in both) for s in (own, other)]
        aim = AIMS[line][i] if i < len(AIMS[line]) else None
        flops = [own[p]["flops"] / own[p]["seconds"] / 1e9 for p in both if own[p].get("flops")]
        share = f"{median(flops):.0f} GFLOP/s, {100 * median(flops) / peak:.0f} %" if flops and peak else ""
        memory = [s[both[-1]].get("peak_mib") for s in (own, other)]
        memory = " / ".join(f"{m:.0f}" for m in memory if m)
        same = checked(own[both[-1]], other[both[-1]])
        reached = "" if aim is None else f"{aim} ({'reached' if ratio >= aim else 'missed'})"
        cells = [WORK[line] if i == 0 else "", peer, len(both), amount(speed[1]), amount(speed[0]), f"**{ratio:.3g}**",
                 reached, share, memory, same]
        lines.append("| " + " | ".join(str(c) for c in cells) + " |")
    return lines


def machine():
    wanted = ("Model name", "CPU(s)", "Thread(s) per core", "L1d cache", "L2 cache", "L3 cache")
    try:
        found = subprocess.run(["lscpu"], stdout=subprocess.PIPE, text=True, check=True).stdout
        lines = [re.sub(r":\s+", ": ", l) for l in found.splitlines() if l.split(":")[0].strip() in wanted]
        flags = re.search(r"Flags:(.*)", found)
        known = [f for f in ("avx2", "fma", "avx512f", "amx_tile") if flags and f" {f} " in flags[1] + " "]
        lines.append("Vector instructions: " + ", ".join(known))
    except (OSError, subprocess.CalledProcessError):
        lines = [platform.processor() or platform.machine()]
    return lines


def versions():
    names = ("numpy", "scipy", "scikit-learn", "pyarrow", "torch")
    theirs = ", ".join(f"{n} {metadata.version(n)}" for n in names)
    rustc = subprocess.run(["rustc", "--version"], stdout=subprocess.PIPE, text=True).stdout.strip()
    return [f"Python {platform.python_version()}, {theirs}", rustc, f"{platform.system()} {platform.release().split('-')[0]}"]


def write(path, hapt):
    runs = read(path)
    floors = [r for r in runs if r["line"] == "floors"]
    peak = max((f["gemm_gflops"] for f in floors), default=None)
    lines = ["# Races", "", "Written by `bench/race.sh`; `bench/race.sh LINE` races one line again.", ""]
    lines += [f"- {l.strip()}" for l in machine() + versions()]
    simulated = "simulated recordings" if (hapt / "SIMULATED").exists() else "the real recordings (UCI 341)"
    lines += [f"- HAPT: {simulated}", f"- threads on both sides: {runs[-1]['threads'] if runs else '-'}", ""]
    lines += ["## Floors", "", "| measured by | matrix product, GFLOP/s | reading memory, GB/s |", "|---|---|---|"]
    for f in floors:
        by = "dacpipe" if f["floor"] == "dacpipe" else "torch"
        lines.append(f"| {by} | {f['gemm_gflops']:.0f} | {f['memory_gb_per_second']:.1f} |")
    lines += ["", "## Ratios", "",
              "| work | peer | pairs | theirs, rows/s | ours, rows/s | ratio | aim | ours of the matrix product's peak "
              "| peak MiB, ours / theirs | same result |", "|---|---|---|---|---|---|---|---|---|---|"]
    for line in WORK:
        lines += rows_of(line, [r for r in runs if r["line"] == line], peak)
    lines += ["", RULES]
    if NOTES.exists():
        lines.append(NOTES.read_text())
    RESULTS.write_text("\n".join(lines))
    print(f"wrote {RESULTS}")
