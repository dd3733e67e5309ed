"""UMAP of a case's rows with umap-learn: `manifold.py LINE seeded|fast`.

`seeded` is its reproducible mode, which lays out on one thread; `fast` its mode without a seed, on all threads.
"""
import os
import sys

from common import THREADS, emit, load, settings, timed

os.environ["NUMBA_NUM_THREADS"] = str(THREADS)

import numpy as np
import umap
from sklearn.cluster import KMeans
from sklearn.manifold import trustworthiness
from sklearn.metrics import adjusted_rand_score


def main():
    line, mode = sys.argv[1:]
    case = settings(line)
    rows = load(line, "rows.f32", "<f4", case["dim"])
    labels, sample = load(line, "labels.u32", "<u4"), load(line, "sample.u32", "<u4")
    pair = int(os.environ.get("PAIR", "0"))
    mapper = lambda n: umap.UMAP(
        n_neighbors=min(case["neighbors"], n - 1), n_components=case["coordinates"], min_dist=0.0,
        random_state=pair if mode == "seeded" else None, n_jobs=1 if mode == "seeded" else THREADS)
    # The first call compiles.
    mapper(500).fit_transform(rows[:500])
    seconds, found = timed(mapper(len(rows)).fit_transform, rows)
    clusters = KMeans(case["k"], n_init=10, random_state=pair).fit_predict(found)
    kept = trustworthiness(rows[sample], found[sample], n_neighbors=15)
    emit(f"umap-learn, {mode}", line, len(rows), seconds, ari=adjusted_rand_score(labels, clusters),
         check={"trustworthiness (1 %)": kept})


main()
