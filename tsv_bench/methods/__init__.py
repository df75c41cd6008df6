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

from tsv_bench.methods.ablations import tsv_interference_only, tsv_low_rank
from tsv_bench.methods.arithmetic import individual, task_arithmetic, weight_average, zero_shot
from tsv_bench.methods.centered import cart
from tsv_bench.methods.consensus import consensus_ta, consensus_ties
from tsv_bench.methods.cover_bases import dc_merge
from tsv_bench.methods.emr import emr
from tsv_bench.methods.fr_merging import fr_merging
from tsv_bench.methods.isotropic import iso_c, iso_cts
from tsv_bench.methods.largest_magnitude import magmax
from tsv_bench.methods.lata import lata
from tsv_bench.methods.magnitude_bands import breadcrumbs
from tsv_bench.methods.magnitude_masks import magnitude_mask
from tsv_bench.methods.pcb import pcb
from tsv_bench.methods.random_drop import dare_ta, dare_ties
from tsv_bench.methods.sign_election import ties
from tsv_bench.methods.singular_values import subspace_boosting, svc
from tsv_bench.methods.singular_vectors import tsv_compress, tsv_merge
from tsv_bench.methods.tall_masks import tall_mask_ta, tall_mask_ties
from tsv_bench.methods.wudi import wudi

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
