"""Core Space, merging within what all adapters span: https://arxiv.org/abs/2509.17786."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.factored import left_basis, triplets_of_product
from tsv_bench.linalg.svd import truncated_svd
from tsv_bench.methods.entrywise.arithmetic import total
from tsv_bench.methods.entrywise.ties import merge_agreeing
from tsv_bench.methods.knobs import check_choice, check_share, check_switch
from tsv_bench.methods.matrixwise.iso import flat_spectrum
from tsv_bench.methods.matrixwise.tsv import merge_matrix, merge_triplets
from tsv_bench.methods.ranks import kept_rank
from tsv_bench.methods.shared_bases.knots import smallest_kept
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.merge import merge_layers

__all__ = ["core_space"]

RULES = ("tsv", "sum", "ties")


def core_space(
    task_vectors: TaskVectors,
    *,
    rule: str = "tsv",
    density: float | int = 0.2,
    isotropic: bool = False,
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Serve every task matrices that are merged in bases of what the tasks' factors span.

    ``rule`` merges the small matrices that tasks have there: "tsv" by TSV-M, "sum", or "ties",
    which keeps the share ``density`` of the largest entries of each. ``isotropic`` puts all
    singular values of what is merged at their mean. A matrix of which a task has no factors is its
    own: all directions are spanned. Layers that are no matrices are averaged; ``exclude`` and
    ``split_qkv`` as in `tsv_merge`. Raises ValueError for knobs out of range.
    """
    check_choice("rule", rule, RULES, "a way to merge what tasks have in the shared bases")
    check_share("density", density, "the share of entries in the shared bases that TIES keeps")
    check_switch("isotropic", isotropic)
    knobs = {"rule": rule, "density": density, "isotropic": isotropic}
    merged = merge_layers(
        task_vectors.values(),
        partial(merge_whole, **knobs),
        matrices=Matrices.of(exclude, split_qkv),
        merge_factors=partial(merge_factors, **knobs),
    )
    return dict.fromkeys(task_vectors, merged)


def merge_factors(
    lefts: list[Float[Tensor, "m _"]],
    rights: list[Float[Tensor, "_ n"]],
    rule: str,
    density: float | int,
    isotropic: bool,
) -> Float[Tensor, "m n"]:
    """Merge products left @ right in orthonormal bases of all left and of all right factors.

    All but the last product is in float64: it is of small matrices.
    """
    dtype = lefts[0].dtype
    u = left_basis(torch.cat(lefts, dim=1).double())
    v = left_basis(torch.cat(rights).double().mT)
    lefts = [u.mT @ left.double() for left in lefts]
    rights = [right.double() @ v for right in rights]
    if rule == "tsv":
        rank = kept_rank(min(u.shape[1], v.shape[1]), len(lefts), None)
        found = (triplets_of_product(*own, rank) for own in zip(lefts, rights, strict=True))
        merged = merge_triplets(*map(torch.stack, zip(*found, strict=True)), dtype=dtype)
    else:
        cores = torch.stack([left @ right for left, right in zip(lefts, rights, strict=True)])
        merged = merge_cores(cores, rule, density)
    if isotropic:
        merged = flattened(merged, dtype)
    return (u @ merged.double()).to(dtype) @ v.mT.to(dtype)


def merge_whole(
    deltas: Float[Tensor, "tasks m n"], rule: str, density: float | int, isotropic: bool
) -> Float[Tensor, "m n"]:
    """Merge deltas that are their own factors: in bases of all their columns and all their rows.

    A change of bases changes what TIES does, and nothing else.
    """
    if rule == "tsv":
        merged = merge_matrix(deltas)
    elif rule == "sum":
        merged = total(deltas)
    else:
        u, v = (
            left_basis(torch.cat(tuple(sides), dim=1).double()).to(deltas.dtype)
            for sides in (deltas, deltas.mT)
        )
        merged = u @ merge_cores(u.mT @ deltas @ v, rule, density) @ v.mT
    return flattened(merged, deltas.dtype) if isotropic else merged


def merge_cores(
    cores: Float[Tensor, "tasks p q"], rule: str, density: float | int
) -> Float[Tensor, "p q"]:
    """Merge what tasks have in the shared bases, by a rule for entries."""
    if rule == "sum":
        return total(cores)
    return merge_agreeing(cores, [smallest_kept(core, density) for core in cores], "mean")


def flattened(matrix: Float[Tensor, "p q"], dtype: torch.dtype) -> Float[Tensor, "p q"]:
    """Return the matrix with its singular values at their mean; those that are zero stay so.

    ``dtype``: of the deltas, whose rounding tells what is zero.
    """
    u, s, vh = truncated_svd(matrix, min(matrix.shape))
    return flat_spectrum(u, s.to(dtype), vh, "spanned")
