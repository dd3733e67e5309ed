"""Runs ours and theirs in turn and keeps one JSON line a measurement; called by race.sh."""
import json
import os
import shutil
import sys
from pathlib import Path

import cargo
import report
from cargo import built, dacpipe

PEERS = Path("bench/peers")
RACE_DIR = Path(os.environ["RACE_DIR"])
RUNS = RACE_DIR / "runs.jsonl"
DATA = Path(os.environ["DATA"]) if os.environ.get("DATA") else None
THREADS = os.environ["THREADS"]

# Each line: the peers' scripts with their arguments, and whether it needs MNIST.
LINES = {
    "train-561": ([["network.py", "eager"], ["network.py", "fused"], ["network.py", "compile"]], False),
    "train-784": ([["network.py", "eager"], ["network.py", "fused"], ["network.py", "compile"]], False),
    "method-dense": ([["method.py"]], False),
    "method-conv": ([["method.py"]], False),
    "encode-561": ([["network.py"]], False),
    "encode-784": ([["network.py"]], False),
    "features": ([["features.py"]], False),
    "weights": ([["feature_weights.py"]], True),
    "lloyd-10": ([["kmeans.py"]], False),
    "lloyd-100": ([["kmeans.py"]], False),
    "lloyd-mnist": ([["kmeans.py"]], True),
    "minibatch": ([["kmeans.py"]], False),
    "online-10": ([["kmeans.py"]], False),
    "online-561": ([["kmeans.py"]], False),
    "manifold-hapt": ([["manifold.py", "seeded"], ["manifold.py", "fast"]], False),
    "manifold-mnist": ([["manifold.py", "seeded"], ["manifold.py", "fast"]], True),
    "label": ([["label_table.py"]], True),
    "stream": ([["stream.py", "sklearn"], ["stream.py", "river"]], False),
    "hapt": ([["hapt.py"]], False),
}


def hapt():
    return DATA / "hapt" if DATA and (DATA / "hapt").is_dir() else Path("examples/data/hapt")


def environment():
    extra = {"HAPT": str(hapt()), "HAPT_DATA": str(hapt())}
    if DATA:
        extra["MNIST"] = str(DATA / "mnist.parquet")
    return {**os.environ, **extra}


def run(command, **more):
    """Standard output, seconds and peak MiB of a command; its failure ends the race."""
    return cargo.run(command, {**environment(), **more})


def measurements(output):
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def model():
    """A model for the line "label": one epoch on MNIST, learned once."""
    kept = RACE_DIR / "label" / "model"
    if not kept.exists():
        sink = RACE_DIR / "label" / "mnist"
        settings = ["stage.autoencoder.epochs=1", f"sink.path={sink}"]
        command = [dacpipe(), "run", "pipelines/mnist.toml", "--quiet", "--json"]
        output, _, _ = run(command + [part for s in settings for part in ("--set", s)])
        shutil.copytree(json.loads(output)["model_path"], kept)
    return kept


def features():
    """The table of HAPT's features for the line "manifold-hapt", made once."""
    table = RACE_DIR / "manifold-hapt" / "features"
    if not table.exists():
        command = [dacpipe(), "run", "pipelines/hapt-features.toml", "--quiet", "--set", f"sink.path={table}",
                   "--set", "sink.vectors=list"]
        run(command)


def command_line(line, rows, command, setup):
    """A measurement of the whole command, start to end."""
    _, seconds, peak = run(command)
    check = setup.pop("check")()
    return dict(peer="dacpipe", work=line, rows=rows, seconds=seconds, rows_per_second=rows / seconds,
                threads=int(THREADS), peak_mib=peak, check=check, **setup)


def ours(line, program):
    if line == "label":
        case, table = RACE_DIR / "label", RACE_DIR / "label" / "ours"
        rows = json.loads((case / "case.json").read_text())["rows"]
        command = [dacpipe(), "label", "--model", model(), "--input", case / "rows.parquet", "--output", table,
                   "--features", "pixels", "--keys", "id", "--threads", THREADS, "--quiet"]
        return [command_line(line, rows, command, {"check": lambda: {"cluster sizes (1e-4)": sizes(table)}})]
    if line == "stream":
        case, table = RACE_DIR / "stream", RACE_DIR / "stream" / "ours"
        found = json.loads((case / "case.json").read_text())
        # As on the other side, the first centroids come from the first file: their learning is not part of the time.
        first = RACE_DIR / "stream" / "first"
        if not first.exists():
            sets = [f"source.path={case / 'in' / 'part-000.parquet'}", f"sink.path={first}"]
            run([dacpipe(), "run", case / "stream.toml", "--quiet"] + [part for s in sets for part in ("--set", s)])
        model = next((first / "models").iterdir())
        shutil.rmtree(table, ignore_errors=True)
        command = [dacpipe(), "run", case / "stream.toml", "--once", "--quiet", "--set", f"stream.model={model}",
                   "--set", f"threads={THREADS}"]
        return [command_line(line, found["rows"], command, {"check": lambda: {"inertia a row (0.01)": inertia(table)}})]
    if line == "hapt":
        table = RACE_DIR / "hapt" / "ours"
        command = [dacpipe(), "run", "pipelines/hapt-dac.toml", "--quiet", "--set", f"sink.path={table}",
                   "--set", f"threads={THREADS}"]
        rows = sum(1 for part in ("train", "test") for _ in open(hapt() / part.title() / f"y_{part}.txt"))
        return [command_line(line, rows, command, {"check": lambda: {"rows": sum(sizes(table))}})]
    return measurements(run([program, line])[0])


def inertia(table):
    """The mean squared distance of a labelled table's rows to their centroids."""
    query = "SELECT avg(CAST(distance AS DOUBLE) * distance) AS inertia FROM t"
    output, _, _ = run([dacpipe(), "sql", "--table", f"t={table}", "--format", "ndjson", "-c", query])
    return measurements(output)[0]["inertia"]


def sizes(table):
    """Rows of each cluster in a labelled table, by SQL."""
    query = "SELECT cluster, count(*) AS n FROM t GROUP BY 1 ORDER BY 1"
    output, _, _ = run([dacpipe(), "sql", "--table", f"t={table}", "--format", "ndjson", "-c", query])
    return [row["n"] for row in measurements(output)]


def theirs(line):
    scripts, _ = LINES[line]
    more = {"MODEL": str(model())} if line == "label" else {}
    return [m for script, *args in scripts for m in measurements(run([sys.executable, PEERS / script, line, *args], **more)[0])]


def keep(line, found):
    """Replaces a line's measurements."""
    kept = [r for r in report.read(RUNS) if r["line"] != line]
    RUNS.write_text("".join(json.dumps(r) + "\n" for r in kept + found))


def race(line, program):
    if line == "manifold-hapt":
        features()
    run([sys.executable, PEERS / "prepare.py", line])
    found = []
    for pair in range(int(os.environ["PAIRS"])):
        os.environ["PAIR"] = str(pair)
        for measurement in theirs(line) + ours(line, program):
            found.append({"line": line, "pair": pair, **measurement})
            print(f"{line} {pair + 1}: {measurement['peer']} {measurement['seconds']:.3f} s, "
                  f"{measurement['rows_per_second']:,.0f} rows/s", file=sys.stderr)
        keep(line, found)


def floors(program):
    """What the machine can do, measured in the same sitting by both sides: the best since RACE_DIR was new, for a floor
    that was measured while other guests were busy is none."""
    found = measurements(run([sys.executable, PEERS / "floors.py"])[0]) + measurements(run([program, "floors"])[0])
    before = {r["floor"]: r for r in report.read(RUNS) if r["line"] == "floors"}
    for floor in found:
        for key in ("gemm_gflops", "memory_gb_per_second"):
            floor[key] = max(floor[key], before.get(floor["floor"], floor)[key])
    keep("floors", [{"line": "floors", "pair": 0, **f} for f in found])


def main():
    words = sys.argv[1:]
    if "--list" in words:
        print("\n".join(LINES))
        return
    if "--report" in words:
        report.write(RUNS, hapt())
        return
    chosen = [line for line in LINES if not words or any(line.startswith(w) for w in words)]
    if not chosen:
        sys.exit(f"no line begins with {' or '.join(words)}; there are {', '.join(LINES)}")
    missing = [line for line in chosen if LINES[line][1] and not (DATA and (DATA / "mnist.parquet").is_file())]
    for line in missing:
        print(f"{line}: left out, there is no mnist.parquet in DATA", file=sys.stderr)
    RACE_DIR.mkdir(parents=True, exist_ok=True)
    program = built("race")
    floors(program)
    for line in chosen:
        if line not in missing:
            race(line, program)
    report.write(RUNS, hapt())


main()
