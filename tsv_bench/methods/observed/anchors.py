"""Merged vectors that need no data, from which methods that see data start."""

from collections.abc import Callable

from tsv_bench.methods.entrywise.arithmetic import task_arithmetic, weight_average, zero_shot
from tsv_bench.methods.entrywise.magmax import magmax
from tsv_bench.methods.knobs import check_choice
from tsv_bench.methods.matrixwise.iso import iso_c, iso_cts
from tsv_bench.methods.matrixwise.tsv import tsv_merge
from tsv_bench.task_vectors.lazy import LazyVector, ServedVectors, TaskVectors, lazy_vectors

# Methods that serve one vector and read nothing before a layer is wanted; the knobs their defaults.
ANCHORS: dict[str, Callable[[TaskVectors], ServedVectors]] = {
    "iso_c": iso_c,
    "iso_cts": iso_cts,
    "magmax": magmax,
    "task_arithmetic": task_arithmetic,
    "tsv_merge": tsv_merge,
    "weight_average": weight_average,
    "zero_shot": zero_shot,
}


def check_anchor(knob: str, value: object) -> None:
    """Raise ValueError unless the value names a method to start from."""
    check_choice(knob, value, tuple(ANCHORS), "a method that needs no data to start from")


def anchor_vector(name: str, task_vectors: TaskVectors) -> LazyVector:
    """Return the vector that the named method serves; there must be a task."""
    lazy = dict(zip(task_vectors, lazy_vectors(task_vectors.values()), strict=True))
    return next(iter(ANCHORS[name](lazy).values()))
