"""KnOTS, merging in a basis that all tasks share: https://arxiv.org/abs/2410.19735."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from threading import Lock

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tsv_bench.linalg.factored import basis_of_products
from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.linalg.svd import eigh, lower_gram
from tsv_bench.methods.entrywise.arithmetic import total
from tsv_bench.methods.entrywise.ties import merge_agreeing
from tsv_bench.methods.knobs import check_choice, check_share
from tsv_bench.task_vectors.lazy import (
    LazyMapping,
    LazyVector,
    Part,
    ServedVectors,
    TaskVectors,
    blocks,
    lazy_vectors,
    stacked,
    widest_dtype,
)
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.merge import mean, zero_parts
from tsv_bench.task_vectors.order_statistics import rank_of
from tsv_bench.task_vectors.streaming import IN_FLIGHT, stream_parts, watched

__all__ = ["knots"]

RULES = ("ties", "sum")
SCOPES = ("vector", "layer")
# Singular values up to this share of the largest of their matrix count as zero.
SMALLEST = 1e-5
KEPT_BASES = 3 * 2**26  # entries of bases that stay in memory between two passes: 0.8 GB in float32
WORK = 4  # memory that a matrix takes, in sizes of its deltas or of its Gram matrix
BITS = 20  # leading bits of a float32 that tell magnitudes apart: a step is 1 / 4096 of the value


# Of a layer: [tasks, m, n], or where factors are known those of each task, [m, r] and [r, n].
Deltas = Tensor | list


def knots(
    task_vectors: TaskVectors,
    *,
    rule: str = "ties",
    density: float | int = 0.2,
    trim: str = "vector",
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Serve every task matrices that are merged in the left singular vectors of all deltas at once.

    ``rule`` merges what a task has along them: "ties" or "sum". TIES keeps the share ``density`` of
    a task's largest entries there, with ``trim`` "vector" of all matrices together, with "layer" of
    each. Layers that are no matrices are averaged; ``exclude`` and ``split_qkv`` as in `tsv_merge`.
    Raises ValueError for knobs out of range.
    """
    check_choice("rule", rule, RULES, "a way to merge what tasks have along shared directions")
    check_share("density", density, "the share of entries along shared directions that TIES keeps")
    check_choice("trim", trim, SCOPES, "among which entries TIES chooses the largest")
    matrices = Matrices.of(exclude, split_qkv)
    vectors = lazy_vectors(task_vectors.values())
    aligned = AlignedLayers(vectors, matrices)
    thresholds = None
    if rule == "ties" and trim == "vector" and density < 1 and vectors:
        # A pass of its own: a threshold is that of all matrices.
        thresholds = aligned.thresholds(density)

    def merge(name: str, deltas: Deltas) -> Tensor:
        shape, dtype = vectors[0].shape(name), widest_dtype(vectors, name)
        if not is_changed(deltas):
            first = deltas if isinstance(deltas, Tensor) else deltas[0][0]
            return torch.zeros(shape, dtype=dtype, device=first.device)
        pieces = []
        for basis, along in aligned.pieces(name, deltas):
            if rule == "sum":
                merged = total(along)
            else:
                lowest = thresholds or [smallest_kept(task, density) for task in along]
                merged = merge_agreeing(along, lowest, "mean", [v.weight for v in vectors])
            pieces.append(basis @ merged.to(dtype))
        return matrices.join(name, shape, pieces)

    def parts(name: str) -> Sequence[Part]:
        if not matrices.is_matrix(name, vectors[0].shape(name)):
            return blocks(vectors, name, mean)
        if (zeros := zero_parts(vectors, name)) is not None:
            return zeros
        return [aligned.part(name, lambda deltas: merge(name, deltas))]

    return dict.fromkeys(task_vectors, LazyVector(vectors, parts))


class AlignedLayers:
    """What each task has along the directions that all tasks share, computed when asked for.

    Bases are kept for a second pass, as many as `KEPT_BASES` allows: they take most of the time.
    """

    def __init__(self, vectors: Sequence[LazyMapping], matrices: Matrices) -> None:
        self._vectors, self._matrices = vectors, matrices
        self._bases: dict[tuple[str, int], Tensor] = {}
        self._num_kept = 0

    def part(self, name: str, compute: Callable[[Tensor], Tensor]) -> Part:
        """Return the part that reads a matrix of all tasks, and what is to be computed of it."""
        m, n = self._vectors[0].shape(name)
        count = len(self._vectors)
        if all(vector.factor_rank(name) is not None for vector in self._vectors):
            return Part(name, 0, 2 * m * n, lambda: self._factors(name), compute)
        entries = max(count * m * n, 2 * m * m)  # the Gram matrix is in float64

        def read() -> Tensor:
            return stacked((vector[name] for vector in self._vectors), count)

        return Part(name, 0, entries, read, compute, alone=WORK * entries > IN_FLIGHT)

    def _factors(self, name: str) -> list[tuple[Tensor, Tensor]]:
        """Return the factors of each task's delta; of a task that did not change it, zeros.

        In float64: they are small, and so is what tasks have along the directions that they span.
        """
        m, n = self._vectors[0].shape(name)
        found = [v.factors(name) if v.factor_rank(name) else None for v in self._vectors]
        device = next(left.device for left, _ in filter(None, found))
        zeros = [torch.zeros(size, device=device) for size in ((m, 1), (1, n))]
        return [tuple(factor.double() for factor in own or zeros) for own in found]

    def pieces(self, name: str, deltas: Deltas) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the basis [m, k] and the tasks along it [tasks, k, n] of each matrix of a layer."""
        if isinstance(deltas, Tensor):
            for index, piece in enumerate(self._matrices.split(name, deltas).unbind(1)):
                basis = self._basis(name, index, lambda piece=piece: shared_basis(piece))
                yield basis, basis.mT @ piece
            return
        dtype = widest_dtype(self._vectors, name)
        split = [self._matrices.split_factors(name, *own) for own in deltas]
        for index in range(len(split[0][0])):
            lefts, rights = zip(
                *((left[index], right[index]) for left, right in split), strict=True
            )
            make = partial(basis_of_products, lefts, rights, SMALLEST, dtype)
            basis = self._basis(name, index, make)
            to = basis.double().mT
            along = (to @ left @ right for left, right in zip(lefts, rights, strict=True))
            yield basis, torch.stack(tuple(along))

    def _basis(self, name: str, index: int, make: Callable[[], Tensor]) -> Tensor:
        """Return the basis of a matrix that is kept, or else a new one, and keep it if it fits."""
        basis = self._bases.get((name, index))
        if basis is None:
            basis = make()
            if self._num_kept + basis.numel() <= KEPT_BASES:
                self._num_kept += basis.numel()
                self._bases[name, index] = basis
        return basis

    def thresholds(self, density: float | int) -> list[float]:
        """Return for each task the smallest magnitude among the share of its largest entries.

        Over all matrices together. It is rounded down to twelve binary digits, so that one pass
        finds it and a few more entries stay: about one in ten thousand.
        """
        shapes = {name: self._vectors[0].shape(name) for name in self._vectors[0]}
        names = [name for name, shape in shapes.items() if self._matrices.is_matrix(name, shape)]
        names = [name for name in names if zero_parts(self._vectors, name) is None]

        counts = torch.zeros(len(self._vectors), 2**BITS, dtype=torch.int64)
        lock = Lock()  # layers are counted side by side

        def count(name: str, deltas: Deltas) -> None:
            for _, along in self.pieces(name, deltas) if is_changed(deltas) else ():
                for of_task, entries in zip(counts, along, strict=True):
                    digits = leading_bits(entries).flatten()
                    if len(digits) < 2**BITS:  # fewer than there are counts to add
                        digits = digits.cpu().long()
                        with lock:
                            of_task.index_add_(0, digits, torch.ones_like(digits))
                    else:
                        found = torch.bincount(digits, minlength=2**BITS).cpu()
                        with lock:
                            of_task += found

        parts = [self.part(name, lambda deltas, name=name: count(name, deltas)) for name in names]
        for _ in watched(stream_parts(parts), len(parts), "shared directions"):
            pass
        return [lowest(of_task, density) for of_task in counts]


def is_changed(deltas: Deltas) -> bool:
    """Return whether a task changed anything."""
    if isinstance(deltas, Tensor):
        return bool(deltas.any())
    return any(bool(left.any() and right.any()) for left, right in deltas)


def shared_basis(deltas: Float[Tensor, "tasks m n"]) -> Float[Tensor, "m k"]:
    """Return the left singular vectors of the deltas side by side, of values that are not zero.

    They are eigenvectors of the sum of delta delta^T, in float64, which tells values down to 1e-8
    of the largest from zero.
    """
    gram = sum(lower_gram(delta.mT.double()) for delta in deltas)
    values, vectors = eigh(gram)
    return vectors[:, values > SMALLEST**2 * values[-1]].to(deltas.dtype)


def leading_bits(entries: Float[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Return the leading `BITS` bits of each magnitude, which are in the same order."""
    return entries.abs().to(torch.float32).view(torch.int32) >> (31 - BITS)


def lowest(counts: Int[Tensor, " bits"], density: float | int) -> float:
    """Return the least magnitude with the leading bits of the ceil(density * entries) largest."""
    num_entries = int(counts.sum())
    if not num_entries:
        return 0.0
    below = num_entries - rank_of(density, num_entries)
    digit = int(torch.searchsorted(counts.cumsum(0), below, right=True))
    return float(torch.tensor(digit << (31 - BITS), dtype=torch.int32).view(torch.float32))


def smallest_kept(entries: Float[Tensor, "..."], density: float | int) -> float:
    """Return the smallest of the ceil(density * entries) largest magnitudes, exactly."""
    magnitudes = at_least_float32(entries).abs().flatten()
    rank = len(magnitudes) - rank_of(density, len(magnitudes)) + 1
    return float(magnitudes.kthvalue(rank).values)
