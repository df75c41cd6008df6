"""How long torch's threads should spin while they wait for each other. On request:

.venv/bin/python benchmarks/waiting.py [--busy]

Trains and evaluates a small network by two threads, then evaluates it by a thread a batch, in
processes with another GOMP_SPINCOUNT each, alone or beside a process that keeps one of two cores
busy. Prints wall and CPU seconds.
"""

import argparse
import os
import subprocess
import sys
import time

from plain_merges import busy_core

SPINS = ("0", "200", "300", "400", "500", "1000", None)  # None: libgomp's default


def work(threads):
    """Train 20 steps and evaluate 60 batches of a transformer as small as the embedded backbone."""
    import torch
    from torch import nn

    from tsv_bench.models.devices import side_by_side

    torch.set_num_threads(threads)
    layers = [nn.TransformerEncoderLayer(64, 4, 256, batch_first=True) for _ in range(4)]
    network, images = nn.Sequential(*layers).eval(), torch.randn(125, 17, 64)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)

    def step():
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()

    def timed(name, count, function):
        function()
        wall, cpu = time.monotonic(), time.process_time()
        for _ in range(count):
            function()
        print(
            f"{name} {time.monotonic() - wall:.2f} s, CPU {time.process_time() - cpu:.2f}", end=" "
        )

    timed("training", 20, step)
    network.requires_grad_(False)  # as a working copy is; which is known in every thread
    timed("evaluating", 60, lambda: network(images))
    timed("evaluating side by side", 1, lambda: side_by_side(network, "cpu", [images] * 60))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--work", type=int, help="do the work by so many threads")
    args = parser.parse_args()
    if args.work:
        return work(args.work)
    with busy_core(args.busy):
        for threads, spins in ((1, None), *((2, spins) for spins in SPINS)):
            chosen = {} if spins is None else {"GOMP_SPINCOUNT": spins}
            found = subprocess.run(
                [sys.executable, __file__, "--work", str(threads)],
                env=os.environ | chosen, capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
            print(f"{threads} threads, GOMP_SPINCOUNT {spins or 'as it is'}: {found}", flush=True)


if __name__ == "__main__":
    main()
