"""DAC's equation 5 over the pairs of a sample, feature by feature, with PyTorch: `feature_weights.py weights`.

The weight of a feature is the mean similarity exp(-(x - y)^2) of pairs of the same class times the mean of one minus it
over pairs of different classes.
"""
import sys

from common import THREADS, emit, load, settings, timed

import torch


def weights(rows, labels):
    same = labels.unsqueeze(0).eq(labels.unsqueeze(1))
    other = ~same
    result = torch.empty(rows.shape[1], dtype=torch.float64)
    for feature, values in enumerate(rows.T):
        similarity = (values.unsqueeze(0) - values.unsqueeze(1)).square_().neg_().exp_()
        result[feature] = similarity[same].mean() * (1 - similarity[other]).mean()
    return result


def main():
    torch.set_num_threads(THREADS)
    name = sys.argv[1]
    case = settings(name)
    sample = case["sample"]
    rows = torch.from_numpy(load(name, "rows.f32", "<f4", case["dim"])[:sample]).double()
    labels = torch.from_numpy(load(name, "labels.u32", "<u4")[:sample].astype("int64"))
    seconds, result = timed(weights, rows, labels)
    emit(f"torch, {sample} rows", name, sample, seconds, check={"weight sum of the sample": result.sum().item()})


if __name__ == "__main__":
    main()
