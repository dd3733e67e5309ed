"""What the peers share: inputs that both sides read, and the JSON line that both sides print."""
import json
import os
import time

import numpy as np

THREADS = int(os.environ.get("THREADS", "2"))
# Libraries read these when they are imported, so this module comes first.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(THREADS)

WORK = os.environ.get("RACE_DIR", "target/race")


def path(*parts):
    return os.path.join(WORK, *parts)


def load(case, name, dtype, columns=None):
    """A bare little-endian array; rows of `columns` values if given."""
    values = np.fromfile(path(case, name), dtype=dtype)
    return values if columns is None else values.reshape(-1, columns)


def settings(case):
    with open(path(case, "case.json")) as f:
        return json.load(f)


def timed(function, *args):
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def emit(peer, work, rows, seconds, **more):
    """One measurement. `check` holds what must be equal on both sides, by name."""
    line = dict(peer=peer, work=work, rows=int(rows), seconds=seconds, rows_per_second=rows / seconds, threads=THREADS)
    print(json.dumps({**line, **more}), flush=True)
