"""Merge task vectors layer by layer or entry by entry."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.task_vectors.lazy import (
    Delta,
    Deltas,
    LazyMapping,
    LazyVector,
    Part,
    as_lazy,
    blocks,
    lazy_vectors,
    stacked,
    widest_dtype,
)
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.streaming import IN_FLIGHT


def mean(deltas: Deltas) -> Delta:
    """Return the mean over tasks."""
    return deltas.mean(dim=0)


def merge_layers(
    vectors: Iterable[Mapping],
    merge_matrix: Callable[[Tensor], Tensor],
    merge_other: Callable[[Tensor], Tensor] = mean,
    matrices: Matrices = Matrices(),  # noqa: B008, it is frozen
    work: Callable[[Sequence[int]], int] | None = None,
    merge_factors: Callable[[list[Tensor], list[Tensor]], Tensor] | None = None,
) -> LazyVector:
    """Merge task vectors into one: ``merge_matrix`` for matrices, ``merge_other`` for the rest.

    ``merge_matrix`` takes stacked deltas [tasks, m, n] and returns [m, n]; a matrix that no task
    changed is zero without asking it. ``merge_other`` takes some rows of another layer, [tasks,
    rows, ...], and must merge entry by entry. Both get float32 at least, and the layer's name if
    they have a parameter ``name``. ``work`` returns of a matrix's shape how many entries in float32
    merging it takes beside the deltas, if these are many; matrices of which two would take more
    than `IN_FLIGHT` are then merged one at a time. ``merge_factors`` takes the place of
    ``merge_matrix`` where all deltas of a matrix are known by factors: it gets those of the tasks
    that changed it, each [m, r] and each [r, n].

    Raises ValueError if the vectors' layers differ.
    """
    vectors = lazy_vectors(vectors)
    of_matrix, of_other = of_layers(merge_matrix), of_layers(merge_other)

    def merge(name: str, deltas: Tensor) -> Tensor:
        if not deltas.any():
            return torch.zeros_like(deltas[0])
        parts = matrices.split(name, deltas).unbind(1)
        return matrices.join(name, deltas.shape[1:], [of_matrix(name)(part) for part in parts])

    def parts(name: str) -> Sequence[Part]:
        shape = vectors[0].shape(name)
        if not matrices.is_matrix(name, shape):
            return blocks(vectors, name, of_other(name))
        if (zeros := zero_parts(vectors, name)) is not None:
            return zeros
        if merge_factors and all(v.factor_rank(name) is not None for v in vectors):
            return [factor_part(vectors, name, matrices, merge_factors)]
        entries = len(vectors) * shape.numel() + (work(shape) if work else 0)
        return [
            Part(
                name, 0, entries,
                lambda: stacked((v[name] for v in vectors), len(vectors)),
                lambda deltas: merge(name, deltas),
                alone=work is not None and 2 * entries > IN_FLIGHT,
            )
        ]  # fmt: skip

    return LazyVector(vectors, parts)


def of_layers(rule: Callable) -> Callable[[str], Callable]:
    """Return a function of a layer's name: the rule for it, which gets the name if it takes one.

    It does by a parameter ``name`` beside its first one, if none is bound to it.
    """
    try:
        parameters = list(inspect.signature(rule).parameters)[1:]
    except (TypeError, ValueError):  # as of a function that is written in C
        parameters = []
    bound = rule.keywords if isinstance(rule, partial) else {}
    if "name" in parameters and "name" not in bound:
        return lambda name: partial(rule, name=name)
    return lambda name: rule


def zero_parts(vectors: Sequence[LazyMapping], name: str) -> Sequence[Part] | None:
    """Return the parts of a layer that is known to be zero in every vector; None: of another.

    None of the layer is read from files.
    """
    if any(vector.factor_rank(name) != 0 for vector in vectors):
        return None
    dtype = widest_dtype(vectors, name)
    return blocks(vectors[:1], name, lambda zeros: zeros[0].to(dtype))


def factor_part(
    vectors: Sequence[LazyMapping],
    name: str,
    matrices: Matrices,
    merge: Callable[[list[Tensor], list[Tensor]], Tensor],
) -> Part:
    """Return the part that merges the factors of a layer of all the vectors that changed it."""
    shape, dtype = vectors[0].shape(name), widest_dtype(vectors, name)

    def read() -> list[tuple[Tensor, Tensor]]:
        found = (v.factors(name) for v in vectors if v.factor_rank(name))
        return [tuple(factor.to(dtype) for factor in factors) for factors in found]

    def compute(read: list[tuple[Tensor, Tensor]]) -> Tensor:
        lefts, rights = zip(*(matrices.split_factors(name, *own) for own in read), strict=True)
        pieces = range(len(lefts[0]))
        merged = [merge([a[i] for a in lefts], [b[i] for b in rights]) for i in pieces]
        return matrices.join(name, shape, merged)

    return Part(name, 0, shape.numel(), read, compute)


def merge_entries(vectors: Iterable[Mapping], merge: Callable[[Tensor], Tensor]) -> LazyVector:
    """Merge task vectors into one, entry by entry.

    ``merge`` takes stacked deltas [tasks, rows, ...], in float32 at least, and returns [rows, ...].
    It gets the layer's name, too, if it has a parameter ``name``. Raises ValueError if the vectors'
    layers differ.
    """
    vectors, of_layer = lazy_vectors(vectors), of_layers(merge)
    return LazyVector(vectors, lambda name: blocks(vectors, name, of_layer(name)))


def map_layers(vector: Mapping, function: Callable[[str, Tensor], Tensor]) -> LazyVector:
    """Return a lazy vector of ``function(name, delta)``; it gets whole layers, float32 at least."""
    vector = as_lazy(vector)

    def parts(name: str) -> Sequence[Part]:
        return [
            Part(
                name, 0, vector.shape(name).numel(),
                lambda: at_least_float32(vector[name]),
                lambda delta: function(name, delta),
            )
        ]  # fmt: skip

    return LazyVector([vector], parts)


def times(vector: Mapping, factor: float | int) -> LazyVector:
    """Return a vector multiplied by a factor."""
    if not isinstance(vector, LazyVector):  # as of a single task with the method individual
        return map_layers(vector, lambda name, delta: delta * factor)

    def parts(name: str) -> Sequence[Part]:
        return [scaled(part, factor) for part in vector.parts(name)]

    return LazyVector([vector], parts)


def scaled(part: Part, factor: float | int) -> Part:
    """Return the part with its result multiplied by a factor."""
    return replace(part, compute=lambda read: part.compute(read) * factor)
