"""Training steps of deep clustering networks in PyTorch eager: rows per second of an epoch.

method.py method-dense|method-conv: 784-500-500-2000-10 and its mirror with reconstruction and hardening, or convolutions and their mirror with
reconstruction alone; batches of 256, Adam.
"""
import json
import os
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

ROWS, BATCH, EPOCHS, K = 8192, 256, 5, 10


def dense():
    widths = [784, 500, 500, 2000, 10]
    there = [nn.Linear(a, b) for a, b in zip(widths, widths[1:])]
    back = [nn.Linear(a, b) for a, b in zip(widths[::-1], widths[::-1][1:])]
    chain = lambda layers: nn.Sequential(*[m for l in layers[:-1] for m in (l, nn.ReLU())], layers[-1])
    return chain(there), chain(back)


def conv():
    encoder = nn.Sequential(
        nn.Conv2d(1, 32, 5, 2, 2), nn.ReLU(), nn.Conv2d(32, 64, 5, 2, 2), nn.ReLU(), nn.Conv2d(64, 128, 3, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(1152, 10),
    )
    decoder = nn.Sequential(
        nn.Linear(10, 1152), nn.ReLU(), nn.Unflatten(1, (128, 3, 3)), nn.ConvTranspose2d(128, 64, 3, 2), nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 5, 2, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 5, 2, 2, 1),
    )
    return encoder, decoder


def assignments(z, centroids):
    q = 1 / (1 + ((z[:, None] - centroids[None]) ** 2).sum(2))
    return q / q.sum(1, keepdim=True)


def main():
    kind = sys.argv[1].removeprefix("method-")
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    torch.manual_seed(1)
    x = torch.rand(ROWS, 784)
    encoder, decoder = dense() if kind == "dense" else conv()
    shaped = x if kind == "dense" else x.reshape(ROWS, 1, 28, 28)
    centroids = nn.Parameter(torch.randn(K, 10))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters(), centroids], lr=1e-3)
    with torch.no_grad():
        q = assignments(encoder(shaped), centroids)
        target = q**2 / q.sum(0)
        target /= target.sum(1, keepdim=True)
    seconds = []
    for _ in range(EPOCHS):
        order = torch.randperm(ROWS)
        began = time.perf_counter()
        for first in range(0, ROWS, BATCH):
            rows = order[first : first + BATCH]
            batch = shaped[rows]
            z = encoder(batch)
            loss = F.mse_loss(decoder(z), batch)
            if kind == "dense":
                p = target[rows]
                loss = loss + (p * (p.log() - assignments(z, centroids).log())).sum() / len(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - began)
    second = statistics.median(seconds[1:])
    print(json.dumps({"peer": "pytorch eager", "work": f"method-{kind}", "rows": ROWS, "seconds": second,
                      "rows_per_second": ROWS / second, "threads": torch.get_num_threads(), "check": {}}))


main()
