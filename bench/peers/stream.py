"""A stream of Parquet files into a Delta table with what people use today: `stream.py stream sklearn|river`.

For each file in turn: the rows are assigned to the centroids as they are, appended to a Delta table with their distances,
and then learned from, one batch a file. scikit-learn: MiniBatchKMeans.partial_fit. River: STREAMKMeans, row by row, on
the first files only.
"""
import resource
import shutil
import sys

from common import emit, path, settings, timed

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import write_deltalake


def append(target, ids, cluster, distance):
    columns = {"id": ids, "cluster": pa.array(cluster.astype(np.int32)), "distance": pa.array(distance.astype(np.float32))}
    write_deltalake(target, pa.table(columns), mode="append")


def batches(files):
    for file in files:
        table = pq.read_table(file)
        values = table.column("x").combine_chunks().values.to_numpy()
        yield table.column("id"), values.reshape(len(table), -1)


def sklearn(files, target, k):
    from sklearn.cluster import MiniBatchKMeans
    learner, inertia = MiniBatchKMeans(k, random_state=0, n_init=1), 0.0
    for ids, rows in batches(files):
        if not hasattr(learner, "cluster_centers_"):
            learner.partial_fit(rows)
        distances = learner.transform(rows)
        cluster = distances.argmin(axis=1)
        distance = distances[np.arange(len(rows)), cluster]
        inertia += float((distance.astype(np.float64) ** 2).sum())
        append(target, ids, cluster, distance)
        learner.partial_fit(rows)
    return inertia


def river(files, target, k):
    from river import cluster as river_cluster
    learner, inertia = river_cluster.STREAMKMeans(chunk_size=1000, n_clusters=k, seed=0), 0.0
    for ids, rows in batches(files):
        clusters, distances = np.zeros(len(rows)), np.zeros(len(rows))
        for row, values in enumerate(rows):
            point = dict(enumerate(values.tolist()))
            learner.learn_one(point)
            clusters[row] = learner.predict_one(point)
            center = learner.centers.get(int(clusters[row]), point)
            distances[row] = sum((value - center[i]) ** 2 for i, value in point.items()) ** 0.5
        inertia += float((distances**2).sum())
        append(target, ids, clusters, distances)
    return inertia


def main():
    name, which = sys.argv[1:]
    case = settings(name)
    files = [path(name, "in", f"part-{i:03}.parquet") for i in range(case["files"])]
    # River takes about a millisecond a row.
    files = files[:1] if which == "river" else files
    target = path(name, f"theirs-{which}")
    shutil.rmtree(target, ignore_errors=True)
    seconds, inertia = timed({"sklearn": sklearn, "river": river}[which], files, target, case["k"])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = case["rows"] // case["files"] * len(files)
    check = {"inertia a row (0.01)": inertia / rows} if which == "sklearn" else {}
    peer = {"sklearn": "scikit-learn partial_fit + deltalake", "river": "River STREAMKMeans + deltalake"}[which]
    emit(peer, name, rows, seconds, peak_mib=memory, check=check)


if __name__ == "__main__":
    main()
