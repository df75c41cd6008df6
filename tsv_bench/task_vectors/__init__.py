"""Task vectors, read and merged one layer at a time: https://arxiv.org/abs/2212.04089.

A task vector is any mapping from layer name to delta (fine-tuned minus pretrained). It may be lazy:
each access reads or computes, and nothing is kept. Task vectors map a task's name to its own.
"""

from typing import TYPE_CHECKING

from tsv_bench.faces import late

if TYPE_CHECKING:
    from tsv_bench.task_vectors.lazy import (
        LazyMapping,
        LazyVector,
        Part,
        TaskVectors,
        as_lazy,
        blocks,
        lazy_vectors,
    )
    from tsv_bench.task_vectors.matrices import NOT_MERGED, Matrices
    from tsv_bench.task_vectors.merge import map_layers, mean, merge_entries, merge_layers
    from tsv_bench.task_vectors.task_vector import TaskVector, apply, is_changed

__all__ = [
    "NOT_MERGED",
    "LazyMapping",
    "LazyVector",
    "Matrices",
    "Part",
    "TaskVector",
    "TaskVectors",
    "apply",
    "as_lazy",
    "blocks",
    "is_changed",
    "lazy_vectors",
    "map_layers",
    "mean",
    "merge_entries",
    "merge_layers",
]
__getattr__ = late(__name__, "lazy", "matrices", "merge", "task_vector")
