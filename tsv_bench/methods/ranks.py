"""How many singular triplets a task keeps: https://arxiv.org/abs/2412.00081, Algorithm 1."""

import logging
import math
from functools import cache

from tsv_bench.methods.knobs import check_share

logger = logging.getLogger(__name__)


def kept_rank(full_rank: int, num_tasks: int, rank_fraction: float | int | None) -> int:
    """Return how many of ``full_rank`` singular triplets each task keeps, at least one.

    ``rank_fraction`` is the share that a task keeps, in (0, 1]; None is 1 / num_tasks. Raises
    ValueError for another one.
    """
    check_rank_fraction(rank_fraction)
    if rank_fraction is None:
        # Integer division, not int(full_rank * (1 / num_tasks)): the latter gives 1 for 98 and 49.
        rank = full_rank // num_tasks
    else:
        # 0.29 * 100 is 28.999999999999996. Nine decimals are finer than any fraction that is given.
        rank = math.floor(round(full_rank * rank_fraction, 9))
    if rank == 0:
        _warn_that_one_is_kept(full_rank, num_tasks, rank_fraction)
    return max(rank, 1)


def check_rank_fraction(rank_fraction: float | int | None) -> None:
    """Raise ValueError unless ``rank_fraction`` is None or a number in (0, 1]."""
    if rank_fraction is not None:
        check_share(
            "rank_fraction", rank_fraction,
            "the share of its singular vectors that every task keeps, at least one and at most "
            "all; null is 1 / number of tasks",
        )  # fmt: skip


@cache  # warns once for each case, not once for each layer and task
def _warn_that_one_is_kept(
    full_rank: int, num_tasks: int, rank_fraction: float | int | None
) -> None:
    share = f"1/{num_tasks}" if rank_fraction is None else rank_fraction
    logger.warning(
        "a share of %s of %d singular vectors is less than one; each of %d tasks keeps one.",
        share, full_rank, num_tasks,
    )  # fmt: skip
