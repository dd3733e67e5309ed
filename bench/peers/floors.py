"""What the machine can do, the best of several tries: matrix product in GFLOP/s, reading memory in GB/s."""
import json

from common import THREADS, timed

import torch


def best(function, tries=7):
    function()
    return min(timed(function)[0] for _ in range(tries))


def main():
    torch.set_num_threads(THREADS)
    size = 2048
    a, b, out = torch.rand(size, size), torch.rand(size, size), torch.empty(size, size)
    gemm = 2 * size**3 / best(lambda: torch.matmul(a, b, out=out)) / 1e9
    # Four times the largest last-level cache that a machine of this kind has per process would be too much to hold
    # everywhere; half a GiB is out of reach of most.
    numbers = torch.rand(1 << 27)
    read = numbers.numel() * 4 / best(lambda: numbers.sum()) / 1e9
    print(json.dumps(dict(floor="machine", gemm_gflops=gemm, memory_gb_per_second=read, threads=THREADS)), flush=True)


main()
