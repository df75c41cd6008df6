"""The measures of layers, one layer of all tasks at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.analysis.measures import overlaps, spectra
from tsv_bench.linalg.polar import check_polar, polar_factor
from tsv_bench.linalg.svd import check_svd_route
from tsv_bench.methods.matrixwise.decomposition import Decomposition, is_real
from tsv_bench.methods.ranks import check_rank_fraction
from tsv_bench.task_vectors.lazy import (
    LazyMapping,
    Part,
    TaskVectors,
    Triplets,
    blocks,
    lazy_vectors,
)
from tsv_bench.task_vectors.matrices import Matrices, matches
from tsv_bench.task_vectors.streaming import stream_parts

CHUNK = 2**16  # entries of a task that are converted to float64 at a time


@dataclass(frozen=True)
class Matrix:
    """The measures of one matrix; an axis of tasks is in their order.

    Values are nan for a task that has not changed the matrix, and so has no singular vectors.
    """

    shape: tuple[int, int]
    rank: int  # triplets that each task keeps
    raw: float  # singular task interference of the kept triplets
    merged: float  # the same after the polar factors of both sides
    pairs: Float[Tensor, "tasks tasks"]  # see `interference_of_pairs`
    left_cosines: Float[Tensor, "tasks tasks"]  # see `subspace_cosines`
    right_cosines: Float[Tensor, "tasks tasks"]
    left_error: float  # max |U^T U - I| of the polar factor
    right_error: float
    left_spanned: int  # dimension of the space that all tasks span
    right_spanned: int
    largest: Float[Tensor, " tasks"]  # largest singular value
    kept_energy: Float[Tensor, " tasks"]  # share of the squared norm in the kept triplets
    effective_rank: Float[Tensor, " tasks"]
    stable_rank: Float[Tensor, " tasks"]
    energy: Float[Tensor, "tasks shares"]  # cumulative energy at `energy_shares`


@dataclass(frozen=True)
class Layer:
    """The measures of one layer."""

    name: str
    shape: tuple[int, ...]
    products: Float[Tensor, "tasks tasks"]  # inner products of the deltas, in float64
    matrices: tuple[Matrix, ...] = ()  # three if a projection is split; none if not a matrix

    @property
    def is_changed(self) -> bool:
        return bool(self.products.diagonal().any())


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of an analysis: TSV-M's knobs, and the layers to measure.

    Raises ValueError for a wrong one.
    """

    rank_fraction: float | int | None = None
    svd: str = "gram"
    polar: str = "eigen"
    exclude: Any = None  # patterns of names, or None for those that tsv_merge excludes
    split_qkv: Any = False  # True: a fused projection is three matrices
    layers: Any = None  # a pattern of names, several, or None for all layers

    def __post_init__(self) -> None:
        check_rank_fraction(self.rank_fraction)
        check_svd_route(self.svd)
        check_polar(self.polar)
        _ = self.matrices
        named = self.layers if isinstance(self.layers, list | tuple) else [self.layers or ""]
        if not all(isinstance(pattern, str) for pattern in named):
            raise ValueError(f"layers={self.layers!r} is no list of patterns, such as ['*attn*'].")

    @property
    def matrices(self) -> Matrices:
        return Matrices.of(self.exclude, self.split_qkv)

    @property
    def patterns(self) -> list[str] | None:
        if isinstance(self.layers, str):
            return [self.layers]
        return None if self.layers is None else list(self.layers)


def chosen_layers(task_vectors: TaskVectors, settings: Settings) -> list[str]:
    """Return the names of the layers that the settings choose.

    Raises ValueError if a pattern fits no layer, or if none of the layers is a matrix.
    """
    vectors, patterns = lazy_vectors(task_vectors.values()), settings.patterns
    every = list(vectors[0].names) if vectors else []
    for pattern in patterns or []:
        if not any(matches(name, [pattern]) for name in every):
            raise ValueError(
                f"layers={pattern!r} fits none of the {len(every)} layers. Their names are like "
                f"{max(every, key=len, default='')!r}; * stands for any part, as in '*attn*'."
            )
    chosen = [name for name in every if patterns is None or matches(name, patterns)]
    if not any(settings.matrices.is_matrix(name, vectors[0].shape(name)) for name in chosen):
        first = f", first {chosen[0]!r}" if chosen else ""
        raise ValueError(
            f"there is no matrix among the {len(chosen)} layers{first}: only two-dimensional ones "
            f"that exclude= does not name have singular vectors."
        )
    return chosen


def measure(task_vectors: TaskVectors, settings: Settings) -> Iterator[Layer]:
    """Measure the chosen layers one by one, in order.

    Raises ValueError as `chosen_layers` does, before any layer is read.
    """
    names = chosen_layers(task_vectors, settings)
    vectors, matrices = lazy_vectors(task_vectors.values()), settings.matrices

    def parts(name: str) -> Sequence[Part]:
        shape = vectors[0].shape(name)
        if not matrices.is_matrix(name, shape):
            return blocks(vectors, name, lambda deltas: (inner_products(list(deltas)), ()))
        layer = Decomposition(
            vectors, name, len(vectors), matrices, settings.rank_fraction, settings.svd
        )
        return [_part(vectors, layer, shape, settings.polar)]

    return _gathered(stream_parts(part for name in names for part in parts(name)), vectors[0])


def _gathered(
    results: Iterator[tuple[str, int, tuple[Tensor, tuple]]], like: LazyMapping
) -> Iterator[Layer]:
    """Yield layers from streamed results; a layer that is no matrix comes in blocks of rows."""
    for name, group in groupby(results, key=lambda result: result[0]):
        products, matrices = zip(*(result for _, _, result in group), strict=True)
        yield Layer(name, tuple(like.shape(name)), torch.stack(products).sum(0), matrices[0])


def _part(
    vectors: Sequence[LazyMapping], layer: Decomposition, shape: torch.Size, polar: str
) -> Part:
    name, kind = layer.name, "values" + ("-split" if layer.matrices.split_qkv else "")

    def read() -> tuple[list[Triplets | Tensor], list[Triplets | None], list[Tensor]]:
        found = layer.read()
        remembered = [vector.recall(name, layer.full_rank, kind) for vector in vectors]
        pairs = zip(vectors, found, strict=True)
        deltas = [one if isinstance(one, Tensor) else vector[name] for vector, one in pairs]
        return found, remembered, deltas

    def compute(read: tuple[list, list, list]) -> tuple[Tensor, tuple[Matrix, ...]]:
        found, remembered, deltas = read
        products = inner_products(deltas)
        if not products.diagonal().any():
            return products, ()
        values = torch.stack(
            [
                new_values(vector, delta) if own is None else own[1].double()
                for vector, delta, own in zip(vectors, deltas, remembered, strict=True)
            ]
        )
        deltas.clear()  # frees memory; the decompositions free theirs one by one
        pieces = [part.unbind(1) for part in (*layer.compute(found), values)]
        return products, tuple(measure_matrix(*piece, polar) for piece in zip(*pieces, strict=True))

    def new_values(vector: LazyMapping, delta: Tensor) -> Float[Tensor, "pieces r"]:
        s = spectra.singular_values(layer.matrices.split(name, delta))
        # Triplets without vectors, which are not needed here and would take long to compute.
        vector.keep(name, (s.new_empty(len(s), 0, s.shape[1]), s, s.new_empty(*s.shape, 0)), kind)
        return s

    return Part(name, 0, len(vectors) * shape.numel(), read, compute)


def inner_products(deltas: Sequence[Float[Tensor, "..."]]) -> Float[Tensor, "tasks tasks"]:
    """Return the inner product of each delta with each other, in float64."""
    rows = [delta.reshape(-1) for delta in deltas]
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows[0].device)
    for start in range(0, len(rows[0]), CHUNK):
        chunk = torch.stack([row[start : start + CHUNK] for row in rows]).double()
        total += chunk @ chunk.mT
    return total.cpu()


def measure_matrix(
    u: Float[Tensor, "tasks m k"],
    s: Float[Tensor, "tasks k"],
    vh: Float[Tensor, "tasks k n"],
    values: Float[Tensor, "tasks r"],
    polar: str = "eigen",
) -> Matrix:
    """Measure one matrix.

    ``u``, ``s`` and ``vh`` are the k triplets that each task keeps, ``values`` all its singular
    values.
    """
    num_tasks, m, rank = u.shape
    real = is_real(s)
    # As in merging, singular vectors of a singular value of zero are arbitrary and left out.
    left = (u * real[:, None]).transpose(0, 1).reshape(m, -1)
    right = (vh * real[..., None]).flatten(0, 1).mT
    s, real = (s * real).flatten(), real.flatten()
    left_gram, right_gram = overlaps.gram(left), overlaps.gram(right)
    apart = [overlaps.off_identity(gram, real) for gram in (left_gram, right_gram)]
    raw = overlaps.interference(apart[0], s, apart[1])
    pairs = overlaps.interference_of_pairs(apart[0], s, apart[1], num_tasks)
    cosines = [overlaps.subspace_cosines(gram, real, num_tasks) for gram in (left_gram, right_gram)]

    merged, errors, spanned = [], [], []
    for factor in (left, right):
        factor = polar_factor(factor, polar)
        gram = overlaps.gram(factor)
        errors.append(float(overlaps.orthogonality_error(factor, gram, real)))
        # A partial isometry's squared Frobenius norm is its rank.
        spanned.append(round(float(gram.trace())))
        merged.append(overlaps.off_identity(gram, real))
    return Matrix(
        shape=(m, vh.shape[2]),
        rank=rank,
        raw=float(raw),
        merged=float(overlaps.interference(merged[0], s, merged[1])),
        pairs=pairs.cpu(),
        left_cosines=cosines[0].cpu(),
        right_cosines=cosines[1].cpu(),
        left_error=errors[0],
        right_error=errors[1],
        left_spanned=spanned[0],
        right_spanned=spanned[1],
        largest=values[:, 0].clone().cpu(),
        kept_energy=spectra.cumulative_energy(values)[:, rank - 1].clone().cpu(),
        effective_rank=spectra.effective_rank(values).cpu(),
        stable_rank=spectra.stable_rank(values).cpu(),
        energy=spectra.energy_at_shares(values).cpu(),
    )
