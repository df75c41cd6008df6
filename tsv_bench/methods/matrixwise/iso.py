"""Isotropic merging, Iso-C and Iso-CTS: https://arxiv.org/abs/2502.04959."""

import logging
import math
from collections.abc import Sequence
from functools import cache, partial

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.factored import triplets_of_product
from tsv_bench.linalg.polar import polar_factor, polar_product
from tsv_bench.linalg.precision import at_unit_scale, singular_zero
from tsv_bench.linalg.svd import truncated_svd
from tsv_bench.methods.knobs import check_choice, check_range
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.merge import merge_layers

__all__ = ["iso_c", "iso_cts"]

log = logging.getLogger(__name__)
MEANS = ("all", "spanned")


def iso_c(
    task_vectors: TaskVectors,
    *,
    mean_over: str | None = None,
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Serve every task the sum of the tasks' matrices with all singular values at their mean.

    ``mean_over`` "all" counts the zeros among them; "spanned" does not: it is the mean over the
    directions that the sum spans. Null is "spanned" for a matrix that every task's adapter gives by
    its factors, else "all". Layers that are no matrices are averaged; ``exclude`` and ``split_qkv``
    as in `tsv_merge`. Raises ValueError for knobs out of range.
    """
    if mean_over is not None:
        check_choice("mean_over", mean_over, MEANS, "which singular values the mean is of")
    matrices = Matrices.of(exclude, split_qkv)
    merged = merge_layers(
        task_vectors.values(),
        isotropic_spanned if mean_over == "spanned" else isotropic_sum,
        matrices=matrices,
        merge_factors=partial(isotropic_sum_of_factors, mean_over=mean_over or "spanned"),
    )
    return dict.fromkeys(task_vectors, merged)


def iso_cts(
    task_vectors: TaskVectors,
    *,
    common_fraction: float | int = 0.8,
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Serve every task Iso-C with its last singular vectors replaced by the tasks' own.

    ``common_fraction`` is the share of directions that come from the sum, in [0, 1]; tasks share
    the rest equally. Layers and other knobs as in `iso_c`. Raises ValueError for knobs out of
    range.
    """
    check_range(
        "common_fraction", common_fraction, 0, 1,
        "the share of directions that come from the sum of all tasks; 1 is Iso-C, 0 leaves each "
        "task its own only",
    )  # fmt: skip
    matrices = Matrices.of(exclude, split_qkv)
    rule = partial(at_unit_scale, partial(isotropic_subspaces, common_fraction=common_fraction))
    return dict.fromkeys(task_vectors, merge_layers(task_vectors.values(), rule, matrices=matrices))


def isotropic_sum(deltas: Float[Tensor, "tasks m n"]) -> Float[Tensor, "m n"]:
    """Return the sum with a flat spectrum; directions that it does not span stay zero."""
    total = deltas.sum(dim=0)
    factor = polar_factor(total)
    # The sum of singular values of u s vh is its scalar product with u vh: no SVD is needed.
    nuclear_norm = (factor * total).sum(dtype=torch.float64)
    return factor * (nuclear_norm / min(total.shape)).to(total.dtype)


def isotropic_spanned(deltas: Float[Tensor, "tasks m n"]) -> Float[Tensor, "m n"]:
    """Return the sum with a flat spectrum, at the mean over the directions that it spans."""
    total = deltas.sum(dim=0)
    return flat_spectrum(*truncated_svd(total, min(total.shape)), "spanned")


def isotropic_sum_of_factors(
    lefts: list[Float[Tensor, "m _"]], rights: list[Float[Tensor, "_ n"]], mean_over: str
) -> Float[Tensor, "m n"]:
    """Return the sum of products left @ right with a flat spectrum; none is multiplied out."""
    left, right = torch.cat(lefts, dim=1), torch.cat(rights)
    rank = min(*left.shape, right.shape[1])
    return flat_spectrum(*triplets_of_product(left, right, rank), mean_over)


def flat_spectrum(
    u: Float[Tensor, "m k"], s: Float[Tensor, " k"], vh: Float[Tensor, "k n"], mean_over: str
) -> Float[Tensor, "m n"]:
    """Return the matrix with the singular values that are not zero at one level, their mean."""
    spanned = s > singular_zero(s.dtype) * s[:1]
    count = min(len(u), vh.shape[1]) if mean_over == "all" else max(int(spanned.sum()), 1)
    level = s[spanned].sum(dtype=torch.float64) / count
    return u[:, spanned] * level.to(s.dtype) @ vh[spanned]


def isotropic_subspaces(
    deltas: Float[Tensor, "tasks m n"], common_fraction: float | int
) -> Float[Tensor, "m n"]:
    """Return the sum's leading directions and each task's own, orthonormal and equally scaled."""
    num_tasks, m, n = deltas.shape
    common, per_task = directions(min(m, n), num_tasks, common_fraction)
    u, s, vh = truncated_svd(deltas.sum(dim=0), common)
    # Singular vectors of a zero singular value are arbitrary: they are no directions.
    spanned = s > singular_zero(s.dtype) * s[:1]
    u, s, vh = u[:, spanned], s[spanned], vh[spanned]
    found = [(u, s, vh)]
    for delta in deltas if per_task else ():  # one at a time, to save a second copy of all
        own_u, own_s, own_vh = truncated_svd(delta - u @ (u.mT @ delta), per_task)
        # A task within the common directions leaves only rounding, relative to the task itself.
        own = own_s > singular_zero(s.dtype) * torch.linalg.matrix_norm(delta)
        found.append((own_u[:, own], own_s[own], own_vh[own]))
    all_u, all_s, all_vh = zip(*found, strict=True)
    values = torch.cat(all_s)
    # The mean counts zeros, as in the authors' code.
    level = values.sum() / (common + num_tasks * per_task)
    return polar_product(torch.cat(all_u, dim=1), level.expand(len(values)), torch.cat(all_vh))


def directions(full_rank: int, num_tasks: int, common_fraction: float | int) -> tuple[int, int]:
    """Return the number of common directions and that of each task's own: ``full_rank`` together.

    A task's share is rounded to the nearest whole number, as in the authors' code, but never to
    more than there are.
    """
    # 0.29 * 100 is 28.999999999999996. Nine decimals are finer than any fraction that is given.
    left = full_rank - math.floor(round(full_rank * common_fraction, 9))
    per_task = min(round(left / num_tasks), full_rank // num_tasks)
    if left and not per_task:
        _warn_that_no_task_has_its_own(full_rank, num_tasks, common_fraction)
    return full_rank - num_tasks * per_task, per_task


@cache  # warns once for each case, not once for each layer
def _warn_that_no_task_has_its_own(
    full_rank: int, num_tasks: int, common_fraction: float | int
) -> None:
    log.warning(
        "common_fraction=%s leaves less than one of %d directions for each of %d tasks: layers of "
        "this size are merged as by Iso-C.",
        common_fraction,
        full_rank,
        num_tasks,
    )
