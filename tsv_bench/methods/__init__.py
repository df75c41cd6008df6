"""Methods: each maps the suite's task vectors to the vector that every task is served with.

    method(task_vectors, *, knobs) -> served

`task_vectors` maps a task's name to its task vector, `served` the same names to the vectors that
evaluation adds to the pretrained backbone: pretrained + alpha * served[task].

- A method that merges serves one vector: the same object for every task, so that it is added once.
- A method that serves each task its own returns lazy vectors: one is computed at a time, on access.
- Layers are read one at a time. What is given is never changed, whatever is lazy may be read again.
- Half-precision deltas are worked on, and served, in float32; float64 stays float64.
- Knobs are checked before anything is read (ValueError), so `method({}, **knobs)` only checks them.
- The result depends on the numbers alone: not on the order of the tasks, not on chance.

Their paper, label, candidates for alpha and knobs are in conf/method/, one file each.
"""

from tsv_bench.methods.arithmetic import individual, task_arithmetic, weight_average, zero_shot
from tsv_bench.methods.sign_election import ties
from tsv_bench.methods.singular_vectors import (
    tsv_compress,
    tsv_interference_only,
    tsv_low_rank,
    tsv_merge,
)

__all__ = [
    "individual",
    "task_arithmetic",
    "ties",
    "tsv_compress",
    "tsv_interference_only",
    "tsv_low_rank",
    "tsv_merge",
    "weight_average",
    "zero_shot",
]
