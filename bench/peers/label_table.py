"""A Parquet table through a saved model with pyarrow, PyTorch and scikit-learn: `label_table.py label`.

Reads batches, scales, encodes, finds the nearest centroid and its distance, writes Parquet. The model is the one that
dacpipe saved, so that both sides give the same clusters.
"""
import os
import resource
import sys

from common import THREADS, emit, path, settings, timed

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from model import Model
from sklearn.metrics import pairwise_distances_argmin_min


def label(source, target, model):
    writer, sizes = None, np.zeros(len(model.centroids), dtype=np.int64)
    for batch in pq.ParquetFile(source).iter_batches(8192):
        pixels = batch.column("pixels").flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
        with torch.inference_mode():
            embedding = model.encoder(torch.from_numpy(model.scale(pixels.astype(np.float32)))).numpy()
        cluster, distance = pairwise_distances_argmin_min(embedding, model.centroids)
        sizes += np.bincount(cluster, minlength=len(sizes))
        columns = [batch.column("id"), pa.array(cluster.astype(np.int32)), pa.array(distance.astype(np.float32))]
        table = pa.table(columns, names=["id", "cluster", "distance"])
        writer = writer or pq.ParquetWriter(target, table.schema, compression="zstd")
        writer.write_table(table)
    writer.close()
    return sizes


def main():
    torch.set_num_threads(THREADS)
    name = sys.argv[1]
    case = settings(name)
    model = Model(os.environ["MODEL"])
    seconds, sizes = timed(label, path(name, "rows.parquet"), path(name, "labels.parquet"), model)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    flops = 2 * sum(p.numel() for p in model.encoder.parameters() if p.dim() == 2) * case["rows"]
    check = {"cluster sizes (1e-4)": sizes.tolist()}
    emit("pyarrow + torch + scikit-learn", name, case["rows"], seconds, flops=flops, peak_mib=memory, check=check)


if __name__ == "__main__":
    main()
