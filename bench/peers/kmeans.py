"""k-means with scikit-learn: `kmeans.py lloyd-10`, `kmeans.py minibatch`, `kmeans.py online-10`."""
import os
import sys

from common import emit, load, settings, timed

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
    # One seeding over three batches, then batches until ten in a row bring no progress, then a pass to label.
    learner = MiniBatchKMeans(
        case["k"],
        n_init=1,
        batch_size=case["batch"],
        max_iter=case["max_iterations"],
        random_state=int(os.environ.get("PAIR", "0")),
    )
    seconds, model = timed(learner.fit, rows)
    seen = int(model.n_steps_) * case["batch"]
    emit("scikit-learn", name, seen, seconds, check={"inertia (3 %)": float(-model.score(rows))})


def online(name):
    case = settings(name)
    rows = load(name, "rows.f32", "<f4", case["dim"])
    init = load(name, "init.f32", "<f4", case["dim"])
    # From the centroids given, which stand for no row yet; no cluster is moved elsewhere.
    learner = MiniBatchKMeans(case["k"], init=init, n_init=1, reassignment_ratio=0, batch_size=case["batch"])

    def stream():
        for _ in range(case["rounds"]):
            for first in range(0, len(rows), case["batch"]):
                learner.partial_fit(rows[first : first + case["batch"]])

    seconds, _ = timed(stream)
    measure(name, case, seconds, case["rounds"], {"inertia (1e-3)": float(-learner.score(rows))})


def measure(name, case, seconds, iterations, check):
    visited = case["rows"] * int(iterations)
    flops = 2 * visited * case["k"] * case["dim"]
    emit("scikit-learn", name, visited, seconds, flops=flops, check=check)


def main():
    name = sys.argv[1]
    if name == "minibatch":
        minibatch(name)
    elif name.startswith("online"):
        online(name)
    else:
        lloyd(name)


if __name__ == "__main__":
    main()
