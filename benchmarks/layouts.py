"""How a table and a large merge lie on 8, 64 and 512 GPUs: estimates, from named assumptions.

.venv/bin/python benchmarks/layouts.py

Prints the tables of docs/layouts.md in seconds, without data or GPU. Counted are images and
candidates of alpha (the yamls of tasks and methods) and the parameters and products of the towers
(open_clip). What a machine does in a second is assumed, and nothing of this was measured.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil

import full_size
from torch import nn

from tsv_bench.cli.config.method import make_method
from tsv_bench.cli.config.overrides import composed
from tsv_bench.cli.config.tasks import make_tasks
from tsv_bench.cli.plan.cells import num_images
from tsv_bench.data import Task
from tsv_bench.methods.method import Method

# Assumptions: of one GPU, one host of eight, and the file system that all share.
HOST = 8  # GPUs
PRODUCTS = 300e12  # floating-point operations a second in bfloat16, as a ViT reaches them
DECOMPOSING = 2e12  # the same in the eigenvectors of float64 matrices of a thousand rows and more
COPIES = 20e9  # bytes a second, from a host's memory to one GPU
HOST_MEMORY = (
    100e9  # bytes a second that a host's processes copy out of its page cache, all together
)
LINK = 20e9  # bytes a second, from the file system to one host
FILES = 100e9  # bytes a second, from the file system to all hosts together

BACKBONES = ("vit_b32", "vit_b16", "vit_l14")
METHODS = (
    "individual", "zero_shot", "weight_average", "task_arithmetic", "ties", "consensus_ta",
    "tsv_merge",
)  # fmt: skip
PIXELS = 3 * 224 * 224  # bytes of an image
EIGEN = 9  # operations an entry and row in the eigenvectors of a symmetric matrix, by Householder

# A language model of 70 billion parameters in bfloat16; shapes as Llama 3's, by general knowledge.
BLOCKS, TASKS_70B = 80, 8
MATRICES = [(8192, 8192)] * 2 + [(1024, 8192)] * 2 + [(28672, 8192)] * 3
VOCABULARY = [(128256, 8192)] * 2


@dataclass(frozen=True)
class Tower:
    num_bytes: float  # of a checkpoint, in float32
    products: float  # operations for an image
    decomposing: float  # operations for the matrices of one task


@cache
def tower(backbone: str) -> Tower:
    visual = full_size.clip(backbone).visual
    tokens = visual.positional_embedding.shape[0]
    matrices = [tuple(p.shape) for p in visual.transformer.parameters() if p.ndim == 2]
    width, layers = visual.ln_pre.weight.shape[0], len(visual.transformer.resblocks)
    attention = 4 * tokens**2 * width * layers
    patches = 2 * (tokens - 1) * visual.conv1.weight.numel()
    return Tower(
        num_bytes=4 * sum(p.numel() for p in nn.Module.parameters(visual)),
        products=2 * tokens * sum(m * n for m, n in matrices) + attention + patches,
        decomposing=sum(map(decomposing, matrices)),
    )


def decomposing(shape: tuple[int, int]) -> float:
    """Operations for the singular vectors of a matrix: a Gram matrix, and its eigenvectors."""
    n, m = sorted(shape)
    return 2 * m * n**2 + EIGEN * n**3


@cache
def suite() -> dict[str, Task]:
    return make_tasks(composed("bench", ["suite=vision20"]).suite.tasks)


@cache
def method(name: str) -> Method:
    return make_method(composed("bench", [f"method={name}", "suite=vision20"]))


def passes(name: str) -> int:
    """How often a method's validation images go through the network."""
    found = method(name)
    searched = len(found.alphas) if len(found.alphas) > 1 else 0
    searched += len(found.choice.candidates) if found.knob_is_open else 0
    return max(searched, 1) if name == "individual" else searched


def together(seconds: Iterable[float], workers: int) -> float:
    """The wall seconds of pieces on so many workers, the longest first."""
    loads = [0.0] * workers
    for piece in sorted(seconds, reverse=True):
        loads[loads.index(min(loads))] += piece
    return max(loads)


def images_a_second(backbone: str, busy: int) -> tuple[float, str]:
    """Images a second of one GPU, of which ``busy`` work on a host, and what keeps it from more."""
    limits = {
        "GPUs": PRODUCTS / tower(backbone).products,
        "copies to GPUs": COPIES / PIXELS,
        "host memory": HOST_MEMORY / busy / PIXELS,
    }
    return min((rate, name) for name, rate in limits.items())


def cell_seconds(backbone: str, name: str, devices: int) -> float:
    """Wall seconds of a cell on so many GPUs of a host whose others are as busy."""
    rate, _ = images_a_second(backbone, HOST)
    val, test = ([num_images(task, s) / rate for task in suite().values()] for s in ("val", "test"))
    evaluating = passes(name) * together(val, devices) + together(test, devices)
    read = (1 + len(suite())) * tower(backbone).num_bytes / (LINK * devices / HOST)
    decomposed = len(suite()) * tower(backbone).decomposing / DECOMPOSING / devices
    return evaluating + read + (decomposed if name == "tsv_merge" else 0)


def table_layout(gpus: int, devices: int) -> dict[str, object]:
    """The table with so many GPUs a cell."""
    cells = [(b, m) for b in BACKBONES for m in METHODS]
    hosts, slots = ceil(gpus / HOST), gpus // devices
    seconds = [cell_seconds(*cell, devices) for cell in cells]
    used = min(hosts, ceil(len(cells) * devices / HOST))
    images = sum(num_images(task, s) for task in suite().values() for s in ("val", "test"))
    pixels = used * images * PIXELS  # each host reads them once, and keeps them
    weights = sum((1 + len(suite())) * tower(b).num_bytes for b, _ in cells)
    reading = (pixels + weights) / min(FILES, used * LINK)
    wall = together(seconds, slots)
    full = sum(seconds) / slots > 0.9 * wall
    saturated = "file system" if reading > wall else "GPUs" if full else "longest cell"
    return {
        "GPUs": gpus, "GPUs a cell": devices, "cells at once": min(slots, len(cells)),
        "GPUs in use": min(slots, len(cells)) * devices, "computing, min": wall / 60,
        "read from files, TB": (pixels + weights) / 1e12, "reading, min": reading / 60,
        "longest cell, min": max(seconds) / 60, "saturated": saturated,
    }  # fmt: skip


def merge_layout(gpus: int, merges: int, matrixwise: bool) -> dict[str, object]:
    """So many merges of a sweep of eight fine-tuned models of 70 billion parameters."""
    parameters = BLOCKS * sum(m * n for m, n in MATRICES) + sum(m * n for m, n in VOCABULARY)
    hosts = min(gpus // HOST, merges)
    read, written = (TASKS_70B + 1) * 2 * parameters, 2 * parameters
    rounds = ceil(merges / hosts)
    reading = rounds * (read + written) / min(LINK, FILES / hosts)
    copying = rounds * read / (COPIES * HOST)
    one = BLOCKS * TASKS_70B * sum(map(decomposing, MATRICES)) / DECOMPOSING / HOST
    times = {"file system and link": reading, "copies to GPUs": copying}
    times |= {"decompositions": rounds * one} if matrixwise else {}
    largest = max(times, key=times.get)
    return {
        "method": "TSV-M" if matrixwise else "Task Arithmetic", "GPUs": gpus, "merges": merges,
        "hosts in use": hosts, "read, TB": merges * read / 1e12,
        "written, TB": merges * written / 1e12, "reading and writing, min": reading / 60,
        "computing, min": rounds * one / 60 if matrixwise else copying / 60,
        "saturated": largest,
    }  # fmt: skip


def backbone_row(backbone: str) -> dict[str, object]:
    rate, limit = images_a_second(backbone, HOST)
    return {
        "backbone": backbone, "a checkpoint, GB": tower(backbone).num_bytes / 1e9,
        "GFLOP an image": tower(backbone).products / 1e9, "images/s a GPU": rate,
        "limited by": limit, "pixels a host, GB/s": HOST * rate * PIXELS / 1e9,
        "decomposing a task, s": tower(backbone).decomposing / DECOMPOSING,
    }  # fmt: skip


def shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
    return str(value)


def table(rows: Sequence[dict[str, object]]) -> str:
    right = ["-" if isinstance(value, str) else "-:" for value in rows[0].values()]
    lines = [list(rows[0]), right, *([shown(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    tasks = suite().values()
    for split in ("val", "test"):
        counts = {task.name: num_images(task, split) for task in tasks}
        largest = max(counts, key=counts.get)
        print(
            f"{split}: {sum(counts.values()):,} images of {len(counts)} tasks, "
            f"{sum(counts.values()) * PIXELS / 1e9:.1f} GB of pixels; the largest, {largest}, has "
            f"{counts[largest] / sum(counts.values()):.0%} of them"
        )
    print(f"\n{table([backbone_row(b) for b in BACKBONES])}\n")
    layouts = [(8, 1), (8, 8), (64, 1), (64, 2), (64, 8), (512, 1), (512, 8)]
    print(f"{table([table_layout(*layout) for layout in layouts])}\n")
    merges = [(8, 1), (64, 1), (64, 8), (512, 64)]
    print(table([merge_layout(*m, matrixwise) for matrixwise in (False, True) for m in merges]))


if __name__ == "__main__":
    main()
