"""Singular value calibration (SVC)."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.precision import singular_zero
from tsv_bench.linalg.svd import truncated_svd
from tsv_bench.methods.entrywise.arithmetic import total
from tsv_bench.methods.knobs import check_positive
from tsv_bench.task_vectors.lazy import ServedVectors, TaskVectors
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.merge import merge_layers

__all__ = ["svc"]


def svc(
    task_vectors: TaskVectors,
    *,
    base_scale: float | int = 0.3,
    calibration_floor: float | int | None = None,
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> ServedVectors:
    """Task arithmetic whose singular values are freed of what tasks share; one vector for all.

    ``base_scale`` times the sum of the task vectors is what is calibrated; ``calibration_floor``
    is the least that a task's coefficient counts, null: 1 / number of tasks. Matrices as
    `Matrices` has them, the others are not calibrated. ``exclude`` as in `subspace_boosting`.
    """
    check_positive("base_scale", base_scale, "the factor of the sum that is calibrated")
    if calibration_floor is not None:
        meaning = "the least that a task's coefficient counts; null is 1 / number of tasks"
        check_positive("calibration_floor", calibration_floor, meaning)
    matrices = Matrices.of(exclude, split_qkv)
    floor = 1 / max(len(task_vectors), 1) if calibration_floor is None else calibration_floor
    return dict.fromkeys(
        task_vectors,
        merge_layers(
            task_vectors.values(),
            partial(calibrated_sum, base_scale=base_scale, floor=floor),
            merge_other=lambda deltas: total(deltas).mul_(base_scale),
            matrices=matrices,
        ),
    )


def calibrated_sum(
    deltas: Float[Tensor, "tasks m n"], base_scale: float | int, floor: float | int
) -> Float[Tensor, "m n"]:
    """The scaled sum, each singular value over the mean coefficient of its direction.

    A task's coefficient says how much longer the merged response to the left singular vector is
    than the task's own (Eq. 4), along the latter; it counts as ``floor`` at least.
    """
    merged = total(deltas).mul_(base_scale)
    u, s, vh = truncated_svd(merged, min(merged.shape), "svd")
    coefficients = torch.zeros_like(s)
    for delta in deltas:  # one at a time: the responses of all are as large as the deltas
        response = u.mT @ delta
        length = torch.linalg.vector_norm(response, dim=1)
        # Where a task has no response but rounding, that must not become a coefficient.
        real = length > singular_zero(s.dtype) * torch.linalg.matrix_norm(delta)
        along = s * (vh * response).sum(dim=1)
        found = along / torch.where(real, length, 1).square() * real
        coefficients += found.clamp(min=floor)
    return u * (s * len(deltas) / coefficients) @ vh
