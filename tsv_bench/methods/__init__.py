"""Methods: each maps the suite's task vectors to the vector that every task is served with.

    method(task_vectors, *, knobs) -> served

`task_vectors` maps a task's name to its task vector, `served` the same names to the vectors that
evaluation adds to the pretrained backbone: pretrained + alpha * served[task].

- A method that merges serves one vector: the same object for every task, so that it is added once.
- A method that serves each task its own returns lazy vectors: one is computed at a time, on access.
- Layers are read one at a time. What is given is never changed, whatever is lazy may be read again.
- Half-precision deltas are worked on, and served, in float32; float64 stays float64.
- Knobs are checked before anything is read (ValueError), so `method({}, **knobs)` only checks them.
- The result depends on the numbers alone, not on the order of the tasks; on chance only by a seed.

Their paper, label, candidates for alpha and knobs are in conf/method/, one file each.
"""

from tsv_bench.methods.entrywise.arithmetic import (
    individual,
    task_arithmetic,
    weight_average,
    zero_shot,
)
from tsv_bench.methods.entrywise.breadcrumbs import breadcrumbs
from tsv_bench.methods.entrywise.dare import dare_ta, dare_ties
from tsv_bench.methods.entrywise.lata import lata
from tsv_bench.methods.entrywise.magmax import magmax
from tsv_bench.methods.entrywise.pcb import pcb
from tsv_bench.methods.entrywise.ties import ties
from tsv_bench.methods.masked.consensus import consensus_ta, consensus_ties
from tsv_bench.methods.masked.emr import emr
from tsv_bench.methods.masked.magnitude_mask import magnitude_mask
from tsv_bench.methods.masked.tall_mask import tall_mask_ta, tall_mask_ties
from tsv_bench.methods.matrixwise.cart import cart
from tsv_bench.methods.matrixwise.dc_merge import dc_merge
from tsv_bench.methods.matrixwise.fr_merging import fr_merging
from tsv_bench.methods.matrixwise.iso import iso_c, iso_cts
from tsv_bench.methods.matrixwise.subspace_boosting import subspace_boosting
from tsv_bench.methods.matrixwise.svc import svc
from tsv_bench.methods.matrixwise.tsv import tsv_compress, tsv_merge
from tsv_bench.methods.matrixwise.tsv_ablations import tsv_interference_only, tsv_low_rank
from tsv_bench.methods.matrixwise.wudi import wudi

__all__ = [
    "breadcrumbs",
    "cart",
    "consensus_ta",
    "consensus_ties",
    "dare_ta",
    "dare_ties",
    "dc_merge",
    "emr",
    "fr_merging",
    "individual",
    "iso_c",
    "iso_cts",
    "lata",
    "magmax",
    "magnitude_mask",
    "pcb",
    "subspace_boosting",
    "svc",
    "tall_mask_ta",
    "tall_mask_ties",
    "task_arithmetic",
    "ties",
    "tsv_compress",
    "tsv_interference_only",
    "tsv_low_rank",
    "tsv_merge",
    "weight_average",
    "wudi",
    "zero_shot",
]
