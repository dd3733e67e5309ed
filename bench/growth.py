"""Measures sizes one after the other, each in a process of its own, and fits exponents; called by growth.sh."""
import json
import math
import os
import shutil
import sys
import time
from pathlib import Path

import cargo
from cargo import built, dacpipe
from report import machine

DIR = Path(os.environ["GROWTH_DIR"])
THREADS = int(os.environ["THREADS"])
TABLE = Path("bench/GROWTH.md")

# How far above its formula's an exponent may lie: caches that are left behind and clocks that jitter.
TOLERANCE = 0.15
# The exponents are fitted over the last points, where constants no longer matter.
FITTED = 4
# Memory below this is what a process has anyway; no exponent is fitted to it.
LEAST_MIB = 4
# A peak that is this much larger at most than with a third of the rows is flat.
FLAT = 1.1

ROWS = [10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000]
DIMS = [10, 32, 128, 256, 512, 1024, 2048, 4096]
KS = [2, 10, 30, 100, 300, 1000]
CODE = 10


def sample(c):
    """Rows that k-means is seeded over."""
    return min(c["rows"], max(min((1 << 24) // c["dim"], 1 << 17), 32 * c["k"]))


def trials(c):
    return 2 + int(math.log(c["k"]))


def parts(c):
    """Parts of the rows, each with sums of its own."""
    return max(1, min(64, c["rows"] // 2048, max(8, (64 << 20) // (8 * c["k"] * c["dim"]))))


def bounded(c):
    return c["k"] * c["dim"] >= 512


def lloyd_memory(c):
    return c["rows"] * (12 if bounded(c) else 4) + 8 * parts(c) * c["k"] * c["dim"]


def weights_memory(c):
    states = min(64, max(1, c["rows"] // 2048)) if c["dim"] * c["k"] <= 1024 else 1
    return states * 30 * 8 * c["k"] * 16 * math.ceil(c["dim"] / 16)


def layers(c):
    """Weights of the encoder `dim - width - 10`."""
    return c["dim"] * c["width"] + c["width"] * CODE


def train_memory(c):
    widths = 2 * (c["dim"] + c["width"]) + CODE
    return 4 * (6 * 2 * layers(c) + c["batch"] * (2 * widths + c["dim"]))


# Each work: what it is, its formulas for time and memory in words and as functions of a case, what is varied and over
# which values, and the case around it. A work whose cases are "process" is the whole command.
WORKS = {
    "assign": dict(
        what="k-means assignment, a pass",
        time="rows · dim · k", memory="8 B a row: label and distance",
        t=lambda c: c["rows"] * c["dim"] * c["k"], m=lambda c: 8 * c["rows"],
        vary=[("rows", ROWS, dict(dim=10, k=10)), ("dim", DIMS, dict(rows=20_000, k=32)),
              ("k", KS, dict(rows=100_000, dim=32)), ("threads", [1, 2], dict(rows=1_000_000, dim=10, k=100))]),
    "lloyd": dict(
        what="Lloyd, an iteration (mean of the second to the ninth)",
        time="rows · dim · k, and dim · k² for bounds",
        memory="4 B a row, 12 with bounds; 8 B · dim · k for each of at most 64 parts (64 MiB at most)",
        t=lambda c: c["rows"] * c["dim"] * c["k"] + (c["dim"] * c["k"] ** 2 if bounded(c) else 0), m=lloyd_memory,
        vary=[("rows", ROWS, dict(dim=10, k=10)), ("dim", DIMS, dict(rows=20_000, k=32)),
              ("k", KS, dict(rows=100_000, dim=32)), ("threads", [1, 2], dict(rows=1_000_000, dim=10, k=100))]),
    "seeding": dict(
        what="greedy k-means++ over a sample of the rows",
        time="sample · dim · k · (2 + ln k), sample ≤ 131 072 rows (or 32 k)",
        memory="that of Lloyd; the sample, and 4 B · (3 + ln k) for each of its rows",
        t=lambda c: sample(c) * c["dim"] * c["k"] * trials(c),
        m=lambda c: max(lloyd_memory(c), 4 * sample(c) * (1 + trials(c) + (c["dim"] if sample(c) < c["rows"] else 0))),
        vary=[("rows", ROWS[:6], dict(dim=10, k=100)), ("dim", DIMS, dict(rows=20_000, k=32)),
              ("k", KS, dict(rows=100_000, dim=10)), ("threads", [1, 2], dict(rows=200_000, dim=10, k=100))]),
    "minibatch": dict(
        what="mini-batch k-means, a batch",
        time="batch · dim · k, whatever the rows", memory="the batch, the sample of three batches (or 8 k rows)",
        t=lambda c: c["batch"] * c["dim"] * c["k"],
        m=lambda c: 4 * max(3 * c["batch"], 8 * c["k"]) * (c["dim"] + 1 + trials(c)) + 4 * c["batch"] * c["dim"],
        vary=[("rows", ROWS, dict(dim=10, k=100, batch=4096)), ("dim", DIMS, dict(rows=20_000, k=32, batch=4096)),
              ("k", KS, dict(rows=100_000, dim=32, batch=4096)),
              ("batch", [256, 1024, 4096, 16_384, 65_536], dict(rows=300_000, dim=10, k=100)),
              ("threads", [1, 2], dict(rows=300_000, dim=10, k=100, batch=16_384))]),
    "weights": dict(
        what="equation 5, a pass (k: classes)",
        time="rows · dim, whatever the classes", memory="240 B · dim · k, for at most 64 parts while dim · k ≤ 1 024",
        t=lambda c: c["rows"] * c["dim"], m=weights_memory,
        vary=[("rows", ROWS, dict(dim=10, k=10)), ("dim", DIMS, dict(rows=10_000, k=10)),
              ("k", KS, dict(rows=30_000, dim=64)), ("threads", [1, 2], dict(rows=1_000_000, dim=10, k=10))]),
    "manifold": dict(
        what="manifold: k neighbours, graph, start and 100 epochs of layout (every pair of rows up to 1e12 / dim pairs, cells beyond)",
        time="rows² · dim + 1.2e4 · rows · k", memory="62 B a row and neighbour",
        t=lambda c: min(c["rows"] ** 2 * c["dim"], 1e12) + 1.2e4 * c["rows"] * c["k"], m=lambda c: 62 * c["rows"] * c["k"],
        vary=[("rows", [3_000, 10_000, 30_000, 100_000], dict(dim=32, k=20)),
              ("k", [5, 10, 20, 40], dict(rows=10_000, dim=32)), ("threads", [1, 2], dict(rows=10_000, dim=32, k=20))]),
    "train": dict(
        what="training dim-width-10-width-dim, a step",
        time="batch · (6 weights - 2 of the first layer), whatever the rows",
        memory="24 B a weight; 4 B · batch for each value between layers, twice",
        t=lambda c: c["batch"] * (12 * layers(c) - 2 * c["dim"] * c["width"]), m=train_memory,
        vary=[("rows", ROWS, dict(dim=16, width=256, batch=256)), ("dim", DIMS, dict(rows=10_000, width=64, batch=256)),
              ("width", [16, 64, 128, 256, 512, 1024, 2048], dict(rows=10_000, dim=561, batch=256)),
              ("batch", [32, 64, 128, 256, 1024, 4096], dict(rows=10_000, dim=561, width=256)),
              ("threads", [1, 2], dict(rows=10_000, dim=561, width=256, batch=256))]),
    "encode": dict(
        what="encoding dim-width-10, a pass",
        time="2 · rows · weights", memory="40 B a row: its embedding; 4 B a weight",
        t=lambda c: 2 * c["rows"] * layers(c), m=lambda c: 4 * CODE * c["rows"] + 4 * layers(c),
        vary=[("rows", ROWS, dict(dim=10, width=64)), ("dim", DIMS, dict(rows=20_000, width=64)),
              ("width", [16, 64, 128, 256, 512, 1024, 2048], dict(rows=20_000, dim=561)),
              ("threads", [1, 2], dict(rows=20_000, dim=561, width=256))]),
    "scale": dict(
        what="scale: learned, and every row mapped",
        time="rows · dim", memory="a block a thread, 8 B · dim for each of at most 64 parts",
        t=lambda c: c["rows"] * c["dim"], m=lambda c: 64 * 8 * c["dim"] + 2 * 4 * max(65_536, 64 * c["dim"]),
        vary=[("rows", ROWS, dict(dim=10)), ("dim", DIMS, dict(rows=20_000)),
              ("threads", [1, 2], dict(rows=1_000_000, dim=10))]),
    "hapt561": dict(
        what="561 features and the filters before them, a window (rows: windows)",
        time="constant", memory="two recordings", t=lambda c: 1, m=lambda c: 1,
        vary=[("rows", [1000, 3000, 10_000, 30_000], {}), ("threads", [1, 2], dict(rows=10_000))]),
    "summary": dict(
        what="summary features of six channels, a window of that length",
        time="length · log length", memory="a recording a thread: 200 windows",
        t=lambda c: c["length"] * math.log2(c["length"]), m=lambda c: 6 * 8 * 100 * c["length"] * c["threads"],
        vary=[("length", [32, 64, 128, 256, 512, 1024, 2048, 4096], dict(rows=1000))]),
    "label": dict(
        what="`dacpipe label` of a Parquet file, dim 64, start to end", process=True,
        time="rows", memory="constant", t=lambda c: c["rows"], m=lambda c: 1,
        vary=[("rows", [100_000, 300_000, 1_000_000, 3_000_000], dict(dim=64, k=10))]),
    "run": dict(
        what="`dacpipe run` with `memory_limit = \"64 MiB\"`, dim 64: one epoch, Lloyd from one start", process=True,
        time="rows", memory="constant, and 16 B a row: order of the epoch, label and bounds of k-means",
        t=lambda c: c["rows"], m=lambda c: (64 << 20) + 16 * c["rows"],
        vary=[("rows", [100_000, 300_000, 1_000_000], dict(dim=64, k=10))]),
}

PIPELINE = """\
name = "growth"
memory_limit = "64 MiB"
threads = {threads}

[source]
kind = "parquet"
path = "{rows}"
features = "features"
keys = ["id"]

[[stage]]
kind = "scale"
method = "min_max"

[[stage]]
kind = "autoencoder"
encoder = [64, 10]
epochs = 1

[[stage]]
kind = "kmeans"
k = {k}
n_init = 1
max_iterations = 10

[sink]
path = "{table}"
keys = ["id"]
"""


def settings(case):
    return [f"{name}={value}" for name, value in case.items()]


def whole(work, case, program):
    """The whole command over a file that is written for it and removed afterwards."""
    place = DIR / "case"
    shutil.rmtree(place, ignore_errors=True)
    output, _, _ = cargo.run([program, "case", place] + settings(case))
    rows, table = place / "rows.parquet", place / "table"
    if work == "label":
        command = ["label", "--model", json.loads(output)["model"], "--input", rows, "--output", table,
                   "--features", "features", "--keys", "id", "--threads", case["threads"], "--quiet"]
    else:
        pipeline = place / "pipeline.toml"
        pipeline.write_text(PIPELINE.format(threads=case["threads"], rows=rows, table=table, k=case["k"]))
        command = ["run", pipeline, "--quiet"]
    _, seconds, peak = min((cargo.run([dacpipe()] + command) for _ in range(2)), key=lambda found: found[1])
    size = rows.stat().st_size / (1 << 20)
    shutil.rmtree(place)
    return dict(seconds=seconds, unit="file", input_mib=size, peak_mib=peak, more_mib=peak)


def start_up(program):
    """Seconds from the start of the command to its end, the median of eleven, with so many tables below `--dir`."""
    place = DIR / "case"
    shutil.rmtree(place, ignore_errors=True)
    output, _, _ = cargo.run([program, "case", place, "rows=1000", "dim=8", "k=4"])
    out, model = place / "out", json.loads(output)["model"]
    label = ["label", "--model", model, "--input", place / "rows.parquet", "--features", "features", "--quiet"]
    cargo.run([dacpipe()] + label + ["--output", out / "t0"])
    found = [("--help", 0, median_of([dacpipe(), "--help"]))]
    for tables in (0, 1, 10, 100):
        for i in range(1, tables):
            if not (out / f"t{i}").exists():
                shutil.copytree(out / "t0", out / f"t{i}")
        where = out if tables else place / "empty"
        found.append(("sql -c 'SELECT 1'", tables, median_of([dacpipe(), "sql", "--dir", where, "-c", "SELECT 1"])))
    shutil.rmtree(place)
    return [dict(work="start-up", command=command, tables=tables, seconds=seconds, peak_mib=peak)
            for command, tables, (seconds, peak) in found]


def median_of(command):
    found = sorted(cargo.run(command)[1:] for _ in range(11))
    return found[len(found) // 2]


def quick(values):
    """Sizes for a look at whether everything runs."""
    return [v for v in values if v <= 512][:4] or [v // 10 for v in values[:3]]


def measure(work, program, hurry):
    found = []
    for variable, values, around in WORKS[work]["vary"]:
        if hurry:
            values = quick(values)
            around = {name: min(value, 4096) for name, value in around.items()}
        for value in values:
            case = dict(rows=100_000, dim=10, k=10, threads=THREADS, batch=256, width=64, length=200)
            case.update(around, **{variable: value})
            case["k"] = min(case["k"], case["rows"])
            case["enough"] = 20 if hurry else 300
            if WORKS[work].get("process"):
                result = whole(work, case, program)
            else:
                result = json.loads(cargo.run([program, work] + settings(case))[0])
            found.append({**case, **result, "work": work, "variable": variable})
            print(f"{work} {variable} = {value}: {result['seconds']:.3g} s a {result['unit']}, "
                  f"{result['peak_mib'] or 0:.0f} MiB", file=sys.stderr)
    return found


def slope(points):
    """The exponent of a power law through points, by least squares on logarithms."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean = [sum(p[i] for p in logs) / len(logs) for i in (0, 1)]
    across = sum((x - mean[0]) ** 2 for x, _ in logs)
    return sum((x - mean[0]) * (y - mean[1]) for x, y in logs) / across


def fitted(runs, variable, measured, formula):
    """Exponents of what was measured and of the formula, over the same last points; none if there are too few."""
    points = [(r[variable], r[measured], formula(r)) for r in runs if r[measured]]
    if measured == "more_mib":
        points = [p for p in points if p[1] >= LEAST_MIB]
    points = points[-FITTED:]
    if len(points) < 2:
        return None
    return slope([(x, y) for x, y, _ in points]), slope([(x, y) for x, _, y in points]), points[0][0]


def grows(found):
    return found is not None and found[0] > found[1] + TOLERANCE


def exponent(found, least):
    return (f"{found[0]:.2f}", f"{found[1]:.2f}") if found else (least, "")


def number(value):
    return f"{value:,}".replace(",", " ")


def shown(seconds):
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def summary(work, runs):
    """A row of the summary for each variable."""
    lines = []
    for variable, _, _ in WORKS[work]["vary"]:
        of = [r for r in runs if r["variable"] == variable]
        if not of or variable == "threads":
            continue
        seconds = fitted(of, variable, "seconds", WORKS[work]["t"])
        memory = fitted(of, variable, "more_mib", WORKS[work]["m"])
        bad = [name for name, found in (("time", seconds), ("memory", memory)) if grows(found)]
        verdict = f"**{' and '.join(bad)} grows faster**" if bad else "no faster"
        if WORKS[work].get("process"):
            ratio = of[-1]["peak_mib"] / of[-2]["peak_mib"]
            verdict += f"; the last step's peak × {ratio:.2f}" + (", flat" if ratio <= FLAT else "")
        start = number(seconds[2]) if seconds else "-"
        time_cells, memory_cells = exponent(seconds, "-"), exponent(memory, f"under {LEAST_MIB} MiB")
        cells = [work, variable, f"{number(of[0][variable])} to {number(of[-1][variable])}", start, *time_cells,
                 *memory_cells, verdict]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def threads(work, runs):
    of = {r["threads"]: r for r in runs if r["variable"] == "threads"}
    if len(of) < 2:
        return []
    one, two = of[1], of[2]
    size = ", ".join(f"{n} {number(one[n])}" for n in ("rows", "dim", "k", "width", "batch") if n in around(work))
    ratio = one["seconds"] / two["seconds"]
    return [f"| {work} | {size} | {shown(one['seconds'])} | {shown(two['seconds'])} | **{ratio:.2f}** | "
            f"{one['more_mib'] or 0:.0f} / {two['more_mib'] or 0:.0f} |"]


def around(work):
    return next(case for variable, _, case in WORKS[work]["vary"] if variable == "threads")


def details(work, runs):
    w = WORKS[work]
    lines = ["", f"### {work}", "", f"{w['what']}. Time: {w['time']}. Memory beyond the input: {w['memory']}.", "",
             f"| varied | to | with | a {runs[0]['unit']} | of the formula's unit | peak MiB | beyond the input MiB |",
             "|---|---|---|---|---|---|---|"]
    for variable, _, fixed in w["vary"]:
        for i, r in enumerate(r for r in runs if r["variable"] == variable):
            fixed_here = ", ".join(f"{n} {number(r[n])}" for n in fixed if n != variable) if i == 0 else ""
            beyond = "" if w.get("process") else f"{r['more_mib'] or 0:.1f}"
            cells = [variable if i == 0 else "", number(r[variable]), fixed_here, shown(r["seconds"]),
                     f"{r['seconds'] / w['t'](r) * 1e9:.3g} ns", f"{r['peak_mib'] or 0:.0f}", beyond]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def write(runs, table):
    by_work = {work: [r for r in runs if r["work"] == work] for work in WORKS}
    by_work = {work: of for work, of in by_work.items() if of}
    lines = ["# How cost grows", "",
             "Written by `bench/growth.sh`; `bench/growth.sh WORK` measures one work again.", ""]
    lines += [f"- {line.strip()}" for line in machine()]
    lines += [f"- threads where they are not varied: {THREADS}", "", "## Exponents", "",
              "Each size is measured in a process of its own: the fastest of at least two calls, and the most memory "
              "held beyond what was held when the input was there. Exponents are least squares on the logarithms of "
              f"the last {FITTED} sizes, for the measurements and for the formula alike; *no faster* is at most "
              f"{TOLERANCE} above the formula's. Rows lie around 64 points that overlap; Lloyd runs nine iterations at "
              "tolerance 0, from rows around four of the points.", "",
              "| work | against | measured | fitted from | time | its formula | memory | its formula | grows |",
              "|---|---|---|---|---|---|---|---|---|"]
    for work, of in by_work.items():
        lines += summary(work, of)
    lines += ["", "## Threads", "", "| work | size | one thread | two | ratio | MiB beyond the input, one / two |",
              "|---|---|---|---|---|---|"]
    for work, of in by_work.items():
        lines += threads(work, of)
    if started := [r for r in runs if r["work"] == "start-up"]:
        lines += ["", "## Start-up", "", "From the start of the process to its end, the median of eleven.", "",
                  "| command | tables below `--dir` | ms | peak MiB |", "|---|---|---|---|"]
        lines += [f"| `dacpipe {r['command']}` | {r['tables']} | {r['seconds'] * 1e3:.1f} | {r['peak_mib']:.0f} |"
                  for r in started]
    lines += ["", "## Sizes"]
    for work, of in by_work.items():
        lines += details(work, of)
    table.write_text("\n".join(lines) + "\n")
    print(f"wrote {table}")


def main():
    words = [w for w in sys.argv[1:] if not w.startswith("--")]
    works = [*WORKS, "start-up"]
    if "--list" in sys.argv:
        print("\n".join(works))
        return
    hurry = "--quick" in sys.argv
    chosen = [work for work in works if not words or any(work.startswith(w) for w in words)]
    if not chosen:
        sys.exit(f"no work begins with {' or '.join(words)}; there are {', '.join(works)}")
    DIR.mkdir(parents=True, exist_ok=True)
    kept = DIR / ("quick.jsonl" if hurry else "runs.jsonl")
    runs = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    if "--report" not in sys.argv:
        program = built("growth")
        for work in chosen:
            start = time.perf_counter()
            found = start_up(program) if work == "start-up" else measure(work, program, hurry)
            runs = [r for r in runs if r["work"] != work] + found
            kept.write_text("".join(json.dumps(r) + "\n" for r in runs))
            print(f"{work}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    write(runs, DIR / "quick.md" if hurry else TABLE)


main()
