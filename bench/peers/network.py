"""Training and encoding with PyTorch: `network.py train-561 eager|fused|compile`, `network.py encode-784 eager`."""
import sys

from common import THREADS, emit, load, settings, timed

import torch
from torch import nn


def build(case):
    """The autoencoder with the parameters given, and its encoder."""
    widths = case["widths"]
    last = len(widths) - 2
    encoder, decoder = [], []
    for i, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
        encoder.append(nn.Linear(inputs, outputs))
        if i < last:
            encoder.append(nn.Tanh() if i % 2 else nn.ReLU())
    mirrored = widths[::-1]
    for i, (inputs, outputs) in enumerate(zip(mirrored, mirrored[1:])):
        decoder += [nn.Linear(inputs, outputs), nn.Sigmoid() if i == last else nn.Tanh()]
    return nn.Sequential(*encoder), nn.Sequential(*encoder, *decoder)


def fill(network, flat):
    flat, at = torch.from_numpy(flat), 0
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(flat[at : at + parameter.numel()].view_as(parameter))
            at += parameter.numel()
    assert at == len(flat)


def train(name, mode):
    case = settings(name)
    rows = torch.from_numpy(load(name, "rows.f32", "<f4", case["widths"][0]))
    weights = torch.from_numpy(load(name, "weights.f32", "<f4"))
    order = torch.from_numpy(load(name, "order.u32", "<u4", case["rows"]).astype("int64"))
    _, network = build(case)
    fill(network, load(name, "parameters.f32", "<f4"))
    # The penalty is l2 times the sum of squares, so its gradient is twice l2 times the parameter.
    settings_of_adam = dict(lr=case["learning_rate"], weight_decay=2 * case["l2"], fused=mode == "fused")
    optimizer = torch.optim.Adam(network.parameters(), **settings_of_adam)
    forward = torch.compile(network) if mode == "compile" else network

    def epoch(order):
        total = torch.zeros((), dtype=torch.float64)
        for chosen in order.split(case["batch"]):
            batch = rows[chosen]
            loss = (weights * (forward(batch) - batch).square()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return total.item() / (len(order) // case["batch"])

    epoch(order[0])  # warm up: allocations, compilation
    seconds, losses = timed(lambda: [epoch(o) for o in order[1:]])
    seen = case["rows"] * (case["epochs"] - 1)
    matrices = sum(p.numel() for p in network.parameters() if p.dim() == 2)
    first = case["widths"][0] * case["widths"][1]
    # Forward, weight gradient, input gradient but for the first layer: two flops a weight and a row each.
    flops = (6 * matrices - 2 * first) * seen
    emit(f"torch {mode}", name, seen, seconds, flops=flops, check={"loss": losses[-1]})


def encode(name):
    case = settings(name)
    encoder, network = build(case)
    fill(network, load(name, "parameters.f32", "<f4"))
    batches = torch.from_numpy(load(name, "rows.f32", "<f4", case["widths"][0])).split(case["batch"])
    with torch.no_grad():
        encoder(batches[0])
        seconds, results = timed(lambda: [[encoder(b) for b in batches] for _ in range(case["repeats"])])
        total = sum(r.double().abs().sum().item() for r in results[0])
    rows = case["rows"] * case["repeats"]
    flops = 2 * sum(a * b for a, b in zip(case["widths"], case["widths"][1:])) * rows
    emit("torch", name, rows, seconds, flops=flops, check={"sum of magnitudes": total})


def main():
    torch.set_num_threads(THREADS)
    name = sys.argv[1]
    if name.startswith("train"):
        train(name, sys.argv[2])
    else:
        encode(name)


if __name__ == "__main__":
    main()
