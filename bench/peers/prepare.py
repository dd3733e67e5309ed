"""Writes the inputs of a race where both sides read them: `prepare.py LINE...`.

Arrays are bare little-endian files under RACE_DIR/LINE, and case.json says their shapes. Inputs that are there already
are left as they are.
"""
import json
import os
import sys

from common import path

import numpy as np

WIDTHS = {
    "561": [561, 256, 128, 64, 32, 16, 12, 10],
    "784": [784, 512, 256, 128, 64, 32, 16, 10],
}


def save(case, arrays, **settings):
    for name, values in arrays.items():
        np.ascontiguousarray(values).tofile(path(case, name))
    with open(path(case, "case.json"), "w") as f:
        json.dump(settings, f)


def layers(widths):
    """(inputs, outputs) of encoder and mirrored decoder."""
    encoder = list(zip(widths, widths[1:]))
    return encoder + [(b, a) for a, b in reversed(encoder)]


def parameters(widths, rng):
    """Weights [outputs, inputs] and biases, layer by layer, uniform within 1 / sqrt(inputs)."""
    parts = []
    for inputs, outputs in layers(widths):
        bound = inputs**-0.5
        parts += [rng.uniform(-bound, bound, (outputs, inputs)), rng.uniform(-bound, bound, outputs)]
    return np.concatenate([p.ravel() for p in parts]).astype("<f4")


def smooth_rows(rows, dim, rng):
    """Rows in [0, 1] with something to learn: sixteen hidden factors through a random map, and noise."""
    hidden = rng.normal(size=(rows, 16)) @ rng.normal(size=(16, dim)) / 4 + 0.1 * rng.normal(size=(rows, dim))
    return (1 / (1 + np.exp(-2 * hidden))).astype("<f4")


def train(case, name):
    rng = np.random.default_rng(1)
    widths, rows, batch, epochs = WIDTHS[name], 8192, 256, 6
    order = np.stack([rng.permutation(rows) for _ in range(epochs)]).astype("<u4")
    arrays = {
        "rows.f32": smooth_rows(rows, widths[0], rng),
        "weights.f32": rng.uniform(0.05, 1, widths[0]).astype("<f4"),
        "parameters.f32": parameters(widths, rng),
        "order.u32": order,
    }
    save(case, arrays, widths=widths, rows=rows, batch=batch, epochs=epochs, learning_rate=3e-3, l2=1e-5)


def encode(case, name):
    rng = np.random.default_rng(2)
    widths, rows = WIDTHS[name], 8 * 8192
    arrays = {"rows.f32": smooth_rows(rows, widths[0], rng), "parameters.f32": parameters(widths, rng)}
    save(case, arrays, widths=widths, rows=rows, batch=8192, repeats=5)


def blobs(case, k):
    rng = np.random.default_rng(3)
    rows, dim = 1_000_000, 10
    centers = 2 * rng.normal(size=(k, dim))
    points = (centers[rng.integers(k, size=rows)] + rng.normal(size=(rows, dim))).astype("<f4")
    init = points[rng.choice(rows, k, replace=False)]
    save(case, {"rows.f32": points, "init.f32": init}, rows=rows, dim=dim, k=k, max_iterations=50, batch=4096)


def online(case, dim, rows, rounds):
    rng = np.random.default_rng(6)
    k = 12
    centers = 2 * rng.normal(size=(k, dim))
    points = (centers[rng.integers(k, size=rows)] + rng.normal(size=(rows, dim))).astype("<f4")
    init = points[rng.choice(rows, k, replace=False)]
    save(case, {"rows.f32": points, "init.f32": init}, rows=rows, dim=dim, k=k, rounds=rounds, batch=4096)


def stream(case, files=100, rows=10_000, dim=10, k=12):
    """Files of vectors around slowly moving centers, and the pipeline that follows them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(8)
    centers, drift = rng.normal(size=(k, dim)) * 4, rng.normal(size=(k, dim)) * 0.01
    os.makedirs(path(case, "in"), exist_ok=True)
    for i in range(files):
        of = rng.integers(0, k, rows)
        values = (centers[of] + i * drift[of] + rng.normal(size=(rows, dim))).astype("<f4")
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), dim)
        ids = pa.array(np.arange(i * rows, (i + 1) * rows))
        pq.write_table(pa.table({"id": ids, "x": vectors}), path(case, "in", f"part-{i:03}.parquet"))
    with open(path(case, "stream.toml"), "w") as f:
        f.write(f'''name = "stream"
seed = 1
[source]
kind = "parquet"
path = "{path(case, 'in')}"
features = "x"
[[stage]]
kind = "kmeans"
k = {k}
[sink]
path = "{path(case, 'ours')}"
[stream]
settle = "0 s"
rows = {rows}
learn = "centroids"
''')
    save(case, {}, rows=files * rows, files=files, k=k, dim=dim)


def mnist(column="pixels", split="train"):
    import pyarrow.parquet as pq

    table = pq.read_table(data("mnist.parquet"), columns=[column, "label", "split"])
    table = table.filter([s == split for s in table["split"].to_pylist()])
    values = table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.reshape(table.num_rows, -1), table["label"].to_numpy()


def data(name):
    directory = os.environ.get("DATA")
    if not directory:
        sys.exit(f"DATA is not set: it names the directory that holds {name}")
    found = os.path.join(directory, name)
    if not os.path.exists(found):
        sys.exit(f"{found}: no such file or directory; see bench/race.sh for what DATA must hold")
    return found


def lloyd_mnist(case):
    rows, _ = mnist()
    rows = (rows / 255).astype("<f4")
    init = rows[np.random.default_rng(4).choice(len(rows), 10, replace=False)]
    save(case, {"rows.f32": rows, "init.f32": init}, rows=len(rows), dim=784, k=10, max_iterations=300)


def weights(case):
    rows, labels = mnist()
    arrays = {"rows.f32": (rows / 255).astype("<f4"), "labels.u32": labels.astype("<u4")}
    save(case, arrays, rows=len(rows), dim=784, sample=1000)


def manifold(case, rows, labels, k):
    """Rows to lay out, and which of them the trustworthiness is measured on."""
    sample = np.random.default_rng(5).choice(len(rows), min(2000, len(rows)), replace=False)
    arrays = {"rows.f32": rows.astype("<f4"), "labels.u32": labels.astype("<u4"), "sample.u32": sample.astype("<u4")}
    save(case, arrays, rows=len(rows), dim=rows.shape[1], k=k, neighbors=20, coordinates=10)


def manifold_mnist(case):
    rows, labels = mnist()
    manifold(case, rows / 255, labels, 10)


def manifold_hapt(case):
    """The training users' features, from the table that race.py let dacpipe write."""
    import pyarrow.parquet as pq

    table = pq.read_table(path(case, "features/data"), columns=["features", "activity", "split"])
    table = table.filter([s == "train" for s in table["split"].to_pylist()])
    values = table["features"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
    names = table["activity"].to_pylist()
    codes = {name: code for code, name in enumerate(sorted(set(names)))}
    low, high = values.min(axis=0), values.max(axis=0)
    scaled = (values - low) / np.maximum(high - low, 1e-12)
    manifold(case, scaled, np.array([codes[name] for name in names]), 12)


def label(case):
    """MNIST over and over to a million rows, in row groups as a writer would leave them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(data("mnist.parquet"), columns=["pixels"])
    target, rows = 1_000_000, 0
    fields = [pa.field("id", pa.int32()), table.schema.field("pixels")]
    with pq.ParquetWriter(path(case, "rows.parquet"), pa.schema(fields), compression="zstd") as writer:
        while rows < target:
            part = table.slice(0, min(len(table), target - rows))
            ids = pa.array(np.arange(rows, rows + len(part), dtype=np.int32))
            writer.write_table(pa.table([ids, part["pixels"]], schema=pa.schema(fields)), row_group_size=65536)
            rows += len(part)
    save(case, {}, rows=rows)


def main():
    makers = {
        "train-561": lambda case: train(case, "561"),
        "train-784": lambda case: train(case, "784"),
        "encode-561": lambda case: encode(case, "561"),
        "encode-784": lambda case: encode(case, "784"),
        "lloyd-10": lambda case: blobs(case, 10),
        "lloyd-100": lambda case: blobs(case, 100),
        "minibatch": lambda case: blobs(case, 100),
        "online-10": lambda case: online(case, 10, 1_000_000, 1),
        "online-561": lambda case: online(case, 561, 250_000, 4),
        "lloyd-mnist": lloyd_mnist,
        "weights": weights,
        "manifold-hapt": manifold_hapt,
        "manifold-mnist": manifold_mnist,
        "label": label,
        "stream": stream,
    }
    for case in sys.argv[1:]:
        if case in makers and not os.path.exists(path(case, "case.json")):
            os.makedirs(path(case), exist_ok=True)
            makers[case](case)


if __name__ == "__main__":
    main()
