"""Merging on a device, beside the plain SVD route on it: two sections of benchmarks/gpu.py."""

import time
from collections.abc import Callable, Iterator
from functools import partial

import full_size
import papers_procedure
import torch
from gpu_timing import Plan, copying, timed
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tsv_bench.cli.config.search_path import CONF
from tsv_bench.merging import merge_files
from tsv_bench.state_dicts.inputs import open_inputs
from tsv_bench.task_vectors.lazy import OtherLayers
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.streaming import stream

MERGED = ("tsv_merge", "iso_c", "tsv_compress", "ties", "wudi")
AIMS = {"vit_b32": "under 5 s, ratio 20", "vit_l14": "ratio 20"}  # of TSV-M


def by_default(name: str) -> Callable:
    return instantiate(OmegaConf.load(CONF / "method" / f"{name}.yaml").serve)


def serve(method: Callable, vectors: dict) -> None:
    """Compute all that a method serves and bring it to the CPU; nothing is kept."""
    for vector in {id(vector): vector for vector in method(vectors).values()}.values():
        for _, _, rows in stream(vector):
            rows.cpu()


class FirstBlock(OtherLayers):
    """The layers of a vector outside of its blocks, and of its first block."""

    @property
    def names(self) -> list[str]:
        return [n for n in super().names if "resblocks." not in n or "resblocks.0." in n]


def compress(deltas: torch.Tensor) -> None:
    rank = min(deltas[0].shape) // len(deltas)
    for delta in deltas:
        u, s, vh = torch.linalg.svd(delta, full_matrices=False)
        u[:, :rank] * s[:rank] @ vh[:rank]


def flatten_sum(deltas: torch.Tensor) -> None:
    u, s, vh = torch.linalg.svd(deltas.sum(dim=0), full_matrices=False)
    u @ vh * s.mean()


# Method -> its plain route for one layer, and the SVDs of one delta that a further task adds.
PLAIN = {
    "tsv_merge": (papers_procedure.merge_layer, 1),
    "tsv_compress": (compress, 1),
    "iso_c": (flatten_sum, 0),
}


def plain_route(name: str, vectors: dict, device: str, tasks: int, until: float) -> float | None:
    """Seconds of the plain route on all matrices, reckoned from one of each shape.

    Their deltas are on the device before the clock starts: reading and copying them, layers that
    are no matrices and writing are not counted. With fewer ``tasks`` than vectors, those that are
    left out count as one SVD each. None if the time did not suffice for every shape.
    """
    rule, svds = PLAIN[name]
    vectors = list(vectors.values())
    shapes: dict[tuple, list[str]] = {}
    for layer in vectors[0]:
        shape = tuple(vectors[0].shape(layer))
        # The embedding of tokens, of which every delta is zero, is one that no method decomposes.
        if Matrices().is_matrix(layer, torch.Size(shape)):
            shapes.setdefault(shape, []).append(layer)
    total = 0.0
    for layers in shapes.values():
        if time.monotonic() > until:
            return None
        deltas = torch.stack([vector[layers[0]] for vector in vectors[:tasks]])
        seconds, _ = timed(device, partial(rule, deltas))
        more = svds * (len(vectors) - len(deltas))
        if more:
            svd = partial(torch.linalg.svd, deltas[0], full_matrices=False)
            seconds += more * timed(device, svd)[0]
        total += len(layers) * seconds
    return total


def merging(
    plan: Plan,
    backbone: str,
    num_tasks: int,
    methods: tuple[str, ...] = MERGED,
    plain_tasks: int = 2,
) -> Iterator[dict]:
    if plan.small:
        backbone, num_tasks = "tiny", 3
    started = time.monotonic()
    pretrained, tasks = full_size.make(
        plan.files / f"{backbone}-{torch.device(plan.device).type}", backbone, num_tasks,
        device=plan.device, until=started + plan.left() / 3,
    )  # fmt: skip
    named = f"{len(tasks)} x {backbone}"
    yield {"files": named, "made in, s": time.monotonic() - started}
    vectors = open_inputs(pretrained, tasks, plan.device).vectors
    few = {task: FirstBlock(vector) for task, vector in vectors.items()}
    plain: dict[str, tuple] = {}

    def row(method: str, what: str, seconds: float, peak: float, shared: tuple) -> dict:
        if method in PLAIN and method not in plain and plan.left() > 5:
            until = time.monotonic() + plan.left() / 2
            plain[method] = plain_route(method, vectors, plan.device, plain_tasks, until)
        route = plain.get(method)
        aim = AIMS.get(backbone) if what == "files to file" else None
        return {
            "method": method, "of": named, "what": what, "s": seconds, "peak, GB": peak,
            "copying": shared[0], "computing": shared[1], "plain SVD route, s": route,
            "ratio": route and route / seconds, "aim": aim or "",
        }  # fmt: skip

    for name in methods:
        if plan.left() < 10 and not plan.small:
            return
        method = by_default(name)
        if not plan.small:
            timed(plan.device, partial(serve, method, few))  # kernels chosen, libraries loaded
        shared = copying(plan.device, partial(serve, method, few))
        if len(methods) > 1:
            found = timed(plan.device, partial(serve, method, vectors))
            yield row(name, "served", *found, shared)
        if name == "tsv_merge":
            merge = partial(
                merge_files.merge, method, pretrained, tasks, plan.files / "merged.safetensors",
                device=plan.device, overwrite=True, progress=False,
            )  # fmt: skip
            found = timed(plan.device, merge)
            yield row(name, "files to file", *found, shared)
