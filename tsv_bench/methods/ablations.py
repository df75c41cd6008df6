"""The two halves of TSV-Merge, each alone: https://arxiv.org/abs/2412.00081, Tables 4 to 6."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.singular_vectors import merge_by_triplets, tsv_merge
from tsv_bench.task_vectors import TaskVectors


def tsv_low_rank(
    task_vectors: TaskVectors,
    *,
    rank_fraction: float | int | None = None,
    svd: str = "gram",
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> Mapping[str, Mapping[str, Tensor]]:
    """TSV-M without its polar factors: the sum of what each task keeps, served to every task.

    The paper's ablation of the removal of interference, Tables 4 to 6.
    """
    return merge_by_triplets(task_vectors, rank_fraction, svd, exclude, split_qkv, sum_triplets)


def tsv_interference_only(
    task_vectors: TaskVectors,
    *,
    svd: str = "gram",
    polar: str = "eigen",
    exclude: Sequence[str] | None = None,
    split_qkv: bool = False,
) -> Mapping[str, Mapping[str, Tensor]]:
    """TSV-M at full rank: interference is removed, nothing is left out; served to every task.

    The paper's ablation of the low rank, Tables 4 to 6.
    """
    return tsv_merge(
        task_vectors,
        rank_fraction=1.0,
        svd=svd,
        polar=polar,
        exclude=exclude,
        split_qkv=split_qkv,
    )


def sum_triplets(
    u: Float[Tensor, "tasks m k"], s: Float[Tensor, "tasks k"], vh: Float[Tensor, "tasks k n"]
) -> Float[Tensor, "m n"]:
    """The singular triplets of all tasks, concatenated and multiplied as they are."""
    m, n = u.shape[1], vh.shape[2]
    return (u * s[:, None]).transpose(0, 1).reshape(m, -1) @ vh.reshape(-1, n)
