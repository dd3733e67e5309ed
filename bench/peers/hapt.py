"""Raw HAPT text to a labelled table with numpy, scipy, PyTorch and scikit-learn: `hapt.py hapt`.

Features of every recording, min-max scaling, equation 5 on 1000 rows, 200 epochs, embedding, k-means, Parquet.
"""
import os
import sys

from common import THREADS, emit, path, timed

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from feature_weights import weights
from features import extract
from network import build
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

WIDTHS = [561, 256, 128, 64, 32, 16, 12, 10]
EPOCHS, BATCH = 200, 256


def users(directory, part):
    return np.unique(np.loadtxt(os.path.join(directory, part.title(), f"subject_id_{part}.txt"), dtype=int))


def train(rows, importance):
    encoder, network = build({"widths": WIDTHS})
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3, weight_decay=2e-5, fused=True)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(rows)).split(BATCH):
            batch = rows[chosen]
            loss = (importance * (network(batch) - batch).square()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return encoder


def pipeline(directory):
    features, keys = extract(directory)
    fit = np.isin(keys[:, 1], users(directory, "train"))
    low, high = features[fit].min(axis=0), features[fit].max(axis=0)
    scaled = np.clip((features - low) / np.maximum(high - low, 1e-12), 0, 1).astype(np.float32)
    rows = torch.from_numpy(scaled)
    sample = np.random.default_rng(0).choice(np.flatnonzero(fit), min(1000, fit.sum()), replace=False)
    importance = weights(rows[sample].double(), torch.from_numpy(keys[sample, 2])).float()
    encoder = train(rows[torch.from_numpy(fit)], importance)
    with torch.inference_mode():
        embedding = encoder(rows).numpy()
    clusters = KMeans(12, n_init=10, random_state=0).fit(embedding[fit]).predict(embedding)
    columns = [*keys.T, clusters.astype(np.int32)]
    names = ["experiment", "user", "activity", "start", "cluster"]
    pq.write_table(pa.table(columns, names=names), path("hapt", "labels.parquet"), compression="zstd")
    return len(rows), adjusted_rand_score(keys[~fit, 2], clusters[~fit])


def main():
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    os.makedirs(path("hapt"), exist_ok=True)
    seconds, (rows, ari) = timed(pipeline, os.environ["HAPT"])
    emit("numpy + scipy + torch + scikit-learn", sys.argv[1], rows, seconds, ari_test=ari, check={"rows": rows})


if __name__ == "__main__":
    main()
