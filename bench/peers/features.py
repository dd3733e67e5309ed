"""Recordings in the HAPT layout to 561 features a window with numpy and scipy: `features.py features`.

What a data scientist writes from the data set's description: read the text, filter each recording, cut windows within
labels, and compute every feature of each window with library calls.
"""
import glob
import os
import re
import sys

from common import emit, timed

import numpy as np
from scipy import signal, stats

RATE, LENGTH, STRIDE = 50.0, 128, 64
HALF = LENGTH // 2
HERTZ = np.linspace(0, RATE / 2, HALF, endpoint=False)
EDGES = [(i, i + size) for size in (8, 16, 24) for i in range(0, HALF - size + 1, size)]


def butterworth(x, cutoff):
    b, a = signal.butter(3, cutoff, fs=RATE)
    return signal.lfilter(b, a, x, axis=0)


def signals(accelerometer, gyroscope):
    """The five three-axis signals: body and gravity, their jerk, angular velocity and its jerk."""
    smooth = lambda x: butterworth(signal.medfilt(x, (3, 1)), 20.0)
    total, rotation = smooth(accelerometer), smooth(gyroscope)
    gravity = butterworth(total, 0.3)
    body, rotation = total - gravity, rotation - butterworth(rotation, 0.3)
    jerk = lambda x: np.diff(x, axis=0, append=x[-1:]) * RATE
    return body, gravity, jerk(body), rotation, jerk(rotation)


def shannon(x):
    counts, _ = np.histogram(x, 16)
    return stats.entropy(counts, base=2)


def autoregression(x, order=4):
    """Burg's coefficients."""
    forward, backward, a = x[1:], x[:-1], np.ones(1)
    for _ in range(order):
        energy = forward @ forward + backward @ backward
        reflection = -2 * (forward @ backward) / energy if energy else 0.0
        a = np.append(a, 0) + reflection * np.append(a, 0)[::-1]
        forward, backward = (forward + reflection * backward)[1:], (backward + reflection * forward)[:-1]
    return a[1:]


def spread(x):
    return np.abs(x - x.mean(axis=0)).mean(axis=0)


def summary(x):
    """Statistics that time and frequency signals share; `x` has one or three columns."""
    area = [np.abs(x).sum() / len(x)]
    entropies = [shannon(column) for column in x.T]
    basic = [x.mean(axis=0), x.std(axis=0, ddof=1), spread(x), x.max(axis=0), x.min(axis=0), area]
    return np.concatenate([*basic, (x**2).mean(axis=0), stats.iqr(x, axis=0), entropies])


def in_time(x):
    parts = [summary(x), *(autoregression(column) for column in x.T)]
    if x.shape[1] == 3:
        with np.errstate(invalid="ignore"):
            parts.append(np.nan_to_num(np.corrcoef(x, rowvar=False)[np.triu_indices(3, 1)]))
    return np.concatenate(parts)


def in_frequency(x):
    spectrum = np.abs(np.fft.rfft(x, axis=0))[:HALF] / HALF
    parts = [summary(spectrum), spectrum.argmax(axis=0), HERTZ @ spectrum / np.maximum(spectrum.sum(axis=0), 1e-12)]
    shape = [stats.skew(spectrum), stats.kurtosis(spectrum, fisher=False)]
    parts.append(np.column_stack(shape).ravel())
    if x.shape[1] == 3:
        parts += [[(column[a:b] ** 2).mean() for a, b in EDGES] for column in spectrum.T]
    return np.concatenate(parts)


def angle(a, b):
    return np.arccos(np.clip(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12), -1, 1))


def features(windows):
    body, gravity, body_jerk, rotation, rotation_jerk = windows
    magnitudes = [np.linalg.norm(w, axis=1, keepdims=True) for w in windows]
    parts = [in_time(w) for w in windows] + [in_time(m) for m in magnitudes]
    parts += [in_frequency(w) for w in (body, body_jerk, rotation)]
    parts += [in_frequency(magnitudes[i]) for i in (0, 2, 3, 4)]
    down = gravity.mean(axis=0)
    angles = [angle(w.mean(axis=0), down) for w in (body, body_jerk, rotation, rotation_jerk)]
    return np.concatenate([*parts, angles, [angle(axis, down) for axis in np.eye(3)]])


def extract(directory, recordings=None):
    """Features, and (experiment, user, activity, first sample) of each window."""
    raw = os.path.join(directory, "RawData")
    labels = np.loadtxt(os.path.join(raw, "labels.txt"), dtype=int)
    rows, keys = [], []
    for name in sorted(glob.glob(os.path.join(raw, "acc_exp*.txt*")))[:recordings]:
        experiment, user = map(int, re.search(r"exp(\d+)_user(\d+)", name).groups())
        whole = signals(np.loadtxt(name), np.loadtxt(name.replace("acc_exp", "gyro_exp")))
        for _, _, activity, first, last in labels[labels[:, 0] == experiment]:
            for start in range(first - 1, last - LENGTH + 1, STRIDE):
                rows.append(features([s[start : start + LENGTH] for s in whole]))
                keys.append((experiment, user, activity, start))
    return np.array(rows, dtype=np.float32), np.array(keys)


def main():
    recordings = int(os.environ.get("RECORDINGS", "4"))
    seconds, (rows, _) = timed(extract, os.environ["HAPT"], recordings)
    assert rows.shape[1] == 561, rows.shape
    emit("numpy + scipy", sys.argv[1], len(rows), seconds, check={"windows": len(rows)})


if __name__ == "__main__":
    main()
