"""k-means with scikit-learn: `kmeans.py lloyd-10`, `kmeans.py minibatch`."""
import sys

from common import emit, load, settings, timed

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans


def lloyd(name):
    case = settings(name)
    rows = load(name, "rows.f32", "<f4", case["dim"])
    init = load(name, "init.f32", "<f4", case["dim"])
    # From the centroids given until no label changes, or for as many iterations as allowed.
    learner = KMeans(case["k"], init=init, n_init=1, max_iter=case["max_iterations"], tol=0, algorithm="lloyd")
    seconds, model = timed(learner.fit, rows)
    check = {"inertia": float(model.inertia_), "iterations": int(model.n_iter_)}
    measure(name, case, seconds, model.n_iter_, check)


def minibatch(name):
    case = settings(name)
    rows = load(name, "rows.f32", "<f4", case["dim"])
    init = load(name, "init.f32", "<f4", case["dim"])
    # The same number of batches on both sides: half a pass over the rows' number, no early stop.
    batch, batches = 4096, 200
    learner = MiniBatchKMeans(
        case["k"], init=init, n_init=1, batch_size=batch, max_no_improvement=None, reassignment_ratio=0, random_state=0
    )

    def fit():
        rng = np.random.default_rng(0)
        for _ in range(batches):
            learner.partial_fit(rows[rng.integers(len(rows), size=batch)])

    seconds, _ = timed(fit)
    inertia = -learner.score(rows)
    emit("scikit-learn", name, batch * batches, seconds, check={"inertia (2 %)": float(inertia)})


def measure(name, case, seconds, iterations, check):
    visited = case["rows"] * int(iterations)
    flops = 2 * visited * case["k"] * case["dim"]
    emit("scikit-learn", name, visited, seconds, flops=flops, check=check)


def main():
    name = sys.argv[1]
    if name == "minibatch":
        minibatch(name)
    else:
        lloyd(name)


if __name__ == "__main__":
    main()
