"""What each task contributes to a merge, so that a candidate is a weighted sum of it.

The candidate with all weights 1 is the merge itself. With others it is the method run on task
vectors that are multiplied by them, for Task Arithmetic and TSV-M; for TIES it is that with the
trimmed entries, signs and counts of weights 1.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.polar import polar_factor
from tsv_bench.methods.by_name import method_by_name
from tsv_bench.methods.entrywise.dare import dropped
from tsv_bench.methods.entrywise.slerp import between
from tsv_bench.methods.knobs import check_choice
from tsv_bench.methods.matrixwise.decomposition import Decomposition, is_real
from tsv_bench.task_vectors.lazy import (
    LazyMapping,
    LazyVector,
    Part,
    TaskVectors,
    blocks,
    lazy_vectors,
    stacked,
)
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.order_statistics import trim_thresholds

BASES = ("task_arithmetic", "ties", "dare_ties", "slerp", "tsv_merge")
# Entries of all contributions together up to which they are kept while candidates are made, 4 GB in
# float32: eight ViT-B/32 fit. More are computed again, layer by layer, for every candidate.
KEPT = 2**30


@dataclass(frozen=True)
class Base:
    """A merge by its name, with all its knobs."""

    name: str
    knobs: Mapping[str, Any]

    @classmethod
    def of(cls, name: object, knobs: object) -> "Base":
        """Return the base with its defaults. Raises ValueError for what is none, or its knobs."""
        check_choice("base", name, BASES, "a merge whose coefficients are searched")
        if name == "slerp" and isinstance(knobs, Mapping) and "t" in knobs:
            raise ValueError("base_knobs has t, which is what merge3 searches with base=slerp.")
        bound = method_by_name("base", name, "base_knobs", knobs)
        takes = list(inspect.signature(bound.func).parameters.values())[1:]
        return cls(name, {p.name: p.default for p in takes} | bound.keywords)


class Contributions:
    """The tasks' contributions to a base, layer by layer, and the candidates made of them.

    Nothing is read before a layer is wanted.
    """

    def __init__(self, task_vectors: TaskVectors, base: Base) -> None:
        self.base, self._task_vectors = base, task_vectors
        self.vectors = lazy_vectors(task_vectors.values())
        self._kept: dict[str, Tensor] = {}
        self._keeps = True

    @cached_property
    def columns(self) -> list[str]:
        """What has a number in every layer: the tasks, or SLERP's place between the two."""
        return ["t"] if self.base.name == "slerp" else list(self._task_vectors)

    def candidate(self, numbers: Callable[[str], Tensor]) -> LazyVector:
        """Return the vector in which a layer's numbers are those of ``numbers(name)``."""
        return LazyVector(self.vectors, lambda name: self.candidate_parts(name, numbers(name)))

    def candidate_parts(self, name: str, numbers: Float[Tensor, " columns"]) -> Sequence[Part]:
        """Return the parts of one layer of a candidate."""
        join = between_two if self.base.name == "slerp" else weighted_sum

        def joined(part: Part) -> Part:
            return replace(part, compute=lambda read: join(part.compute(read), numbers))

        if not self._fit:
            return [joined(part) for part in self._parts(name)]
        # A whole layer, when candidates are made and in the end: the same sums, to the last bit.
        entries = 2 * self.vectors[0].shape(name).numel() * len(self.vectors)
        return [Part(name, 0, entries, lambda: None, lambda _: join(self.of(name), numbers))]

    def of(self, name: str) -> Float[Tensor, "tasks ..."]:
        """Return the contributions to a layer, kept until `forget` if all fit `KEPT`."""
        if name in self._kept:
            return self._kept[name]
        found = [part.compute(part.read()) for part in self._parts(name)]
        joined = found[0] if len(found) == 1 else torch.cat(found, dim=1)
        if self._fit and self._keeps:
            self._kept[name] = joined
        return joined

    def forget(self) -> None:
        """Keep no layer any longer, nor from now on."""
        self._kept.clear()
        self._keeps = False

    @cached_property
    def _fit(self) -> bool:
        entries = sum(self.vectors[0].shape(name).numel() for name in self.vectors[0])
        return entries * len(self.vectors) <= KEPT

    @cached_property
    def _parts(self) -> Callable[[str], Sequence[Part]]:
        """Layer -> the parts of its contributions, each [tasks, rows, ...]."""
        kind, knobs = self.base.name, self.base.knobs
        if kind == "ties":
            return agreeing_parts(self.vectors, knobs["density"], knobs["merge"])
        if kind == "dare_ties":
            drops = dropped(self._task_vectors, knobs["density"], knobs["seed"])
            return agreeing_parts(list(drops.values()), knobs["trim_density"], knobs["merge"])
        if kind == "tsv_merge":
            return triplet_parts(self.vectors, **knobs)
        whole = kind == "slerp"  # an angle is that of a whole layer
        return lambda name: whole_parts(self.vectors, name) if whole else plain_parts(self, name)


def weighted_sum(
    contributions: Float[Tensor, "tasks ..."], weights: Float[Tensor, " tasks"]
) -> Float[Tensor, "..."]:
    """Return the sum of the contributions, each times its weight."""
    return torch.tensordot(weights.to(contributions), contributions, dims=1)


def between_two(
    deltas: Float[Tensor, "tasks ..."], t: Float[Tensor, " one"]
) -> Float[Tensor, "..."]:
    """Return the point on the arc from the first delta to the second, at t."""
    return between(deltas[0], deltas[1], float(t))


def plain_parts(found: Contributions, name: str) -> Sequence[Part]:
    """Return the parts of a layer's deltas themselves."""
    return blocks(found.vectors, name, lambda deltas: deltas)


def whole_parts(vectors: Sequence[LazyMapping], name: str) -> Sequence[Part]:
    """Return one part, a layer's deltas as a whole."""
    entries = vectors[0].shape(name).numel() * len(vectors)
    return [
        Part(
            name, 0, entries,
            lambda: stacked((vector[name] for vector in vectors), len(vectors)),
            lambda deltas: deltas,
        )
    ]  # fmt: skip


def agreeing_parts(
    vectors: Sequence[LazyMapping], density: float | int, merge: str
) -> Callable[[str], Sequence[Part]]:
    """Return a function of a layer's name that returns the parts of TIES' contributions."""
    # These take passes of their own: a threshold is that of a whole task vector.
    thresholds = trim_thresholds(vectors, density)
    rule = partial(agreeing, thresholds=thresholds, merge=merge)
    return lambda name: blocks(vectors, name, rule)


def agreeing(
    deltas: Float[Tensor, "tasks ..."], thresholds: list[float], merge: str
) -> Float[Tensor, "tasks ..."]:
    """Return what each task contributes to a layer of TIES, as `ties` merges it.

    That is its entries that trimming kept and that have the elected sign; with "mean" divided by
    how many tasks have such an entry.
    """
    column = deltas.new_tensor(thresholds).reshape(-1, *[1] * (deltas.ndim - 1))
    kept = deltas.masked_fill(deltas.abs() < column, 0)
    kept = kept.masked_fill(kept * kept.sum(dim=0).sign() <= 0, 0)
    return kept if merge == "sum" else kept / (kept != 0).sum(dim=0).clamp(min=1)


def triplet_parts(
    vectors: Sequence[LazyMapping],
    *,
    rank_fraction: float | int | None,
    svd: str,
    polar: str,
    exclude: Sequence[str] | None,
    split_qkv: bool,
) -> Callable[[str], Sequence[Part]]:
    """Return a function of a layer's name that returns the parts of TSV-M's contributions."""
    matrices = Matrices.of(exclude, split_qkv)

    def parts(name: str) -> Sequence[Part]:
        shape = vectors[0].shape(name)
        if not matrices.is_matrix(name, shape):
            return blocks(vectors, name, lambda deltas: deltas / len(deltas))
        layer = Decomposition(vectors, name, len(vectors), matrices, rank_fraction, svd)

        def compute(read: list) -> Float[Tensor, "tasks m n"]:
            pieces = zip(*(x.unbind(1) for x in layer.compute(read)), strict=True)
            found = [of_triplets(*piece, polar) for piece in pieces]
            of_tasks = zip(*found, strict=True)
            return torch.stack([matrices.join(name, shape, of_task) for of_task in of_tasks])

        entries = len(vectors) * shape.numel()
        return [Part(name, 0, 2 * entries, layer.read, compute)]

    return parts


def of_triplets(
    u: Float[Tensor, "tasks m k"],
    s: Float[Tensor, "tasks k"],
    vh: Float[Tensor, "tasks k n"],
    polar: str,
) -> Float[Tensor, "tasks m n"]:
    """Return what each task contributes to TSV-M's merge of one matrix.

    Its singular values, between its columns of the polar factor of all tasks' left singular
    vectors and its rows of that of the right ones. A multiple of a task's delta has the same
    singular vectors, so that the contributions of multiples are multiples.
    """
    num_tasks, m, k = u.shape
    real = is_real(s).flatten()
    task = torch.arange(num_tasks, device=s.device).repeat_interleave(k)[real]
    left = polar_factor(u.transpose(0, 1).reshape(m, -1)[:, real], polar)
    right = polar_factor(vh.reshape(num_tasks * k, -1)[real], polar)
    left = left * s.flatten()[real]
    products = [left[:, task == t] @ right[task == t] for t in range(num_tasks)]
    return torch.stack(products)
