"""Every method with its knobs, for what holds for all of them, and what does not hold for some."""

import inspect
from functools import partial

import torch
from hydra.utils import instantiate
from made_up.bench import MadeUpBench
from made_up.statistics import made_up_fisher, made_up_grams, made_up_means
from made_up.vectors import SHAPES
from omegaconf import OmegaConf

from tsv_bench import methods
from tsv_bench.cli.config.search_path import CONF

TASKS = [f"task{t}" for t in range(15)]
# What a method needs to see of data, by the argument's name: of the layers of `random_vectors`.
SEEN = {
    "inputs": made_up_grams(SHAPES, TASKS),
    "means": made_up_means(SHAPES, TASKS),
    "fisher": made_up_fisher(SHAPES, TASKS),
    "bench": MadeUpBench(TASKS),
    "instruction": {name: torch.ones(shape) for name, shape in SHAPES.items()},
}


def seeing(method, **knobs):
    """A method with knobs and what it sees of data."""
    needed = set(SEEN) & set(inspect.signature(method).parameters)
    return partial(method, **{name: SEEN[name] for name in needed}, **knobs)


def by_default(path):
    """The method of a yaml with its knobs; one that is chosen by task has its default."""
    node = OmegaConf.load(path)
    serve = instantiate(node.serve)
    if "needs" in node:
        serve = seeing(serve.func, **serve.keywords)
    if "choose" in node and serve.keywords[node.choose.knob] is None:
        serve.keywords[node.choose.knob] = node.choose.default
    return serve


YAMLS = sorted((CONF / "method").glob("*.yaml"))
# The number of tasks that some methods are for: all others are for any.
NUM_TASKS = {path.stem: n for path in YAMLS if (n := OmegaConf.load(path).get("num_tasks"))}
# Those that tsv-merge does without a pretrained checkpoint.
MEANS = [path.stem for path in YAMLS if OmegaConf.load(path).get("without_pretrained")]
# Not in the leaderboard: for another number of tasks, or for adapters.
LEFT_OUT = {*NUM_TASKS, "core_space"}


def suited(method, num_tasks):
    """This number of tasks, or the one that the method is for."""
    return NUM_TASKS.get(getattr(method, "func", method).__name__, num_tasks)


METHODS = {path.stem: by_default(path) for path in YAMLS} | {
    # Other values of knobs, and fewer iterations.
    "iso_c_spanned": partial(methods.iso_c, mean_over="spanned"),
    "ties_sum": partial(methods.ties, density=0.2, merge="sum"),
    "ties_tensor": partial(methods.ties, density=0.2, scope="tensor"),
    "lata_logarithmic": partial(methods.lata, drop="logarithmic", threshold=0.95),
    "lata_threshold": partial(methods.lata, drop="threshold", threshold=0.5),
    "lata_published": seeing(methods.lata_published, drop="linear", threshold=0.95),
    "fr_merging_share": partial(methods.fr_merging, centre="zero", radius=0.1, weights="share"),
    "tsv_merge_svd": partial(methods.tsv_merge, svd="svd", polar="svd"),
    "dc_merge": partial(methods.dc_merge, density=1.0),
    "svc": partial(methods.svc, base_scale=1.0),
    "anchored_regression_data_free": partial(methods.anchored_regression, data_free=True),
    "regmean_undamped": seeing(methods.regmean, off_diagonal=1),
    "ace_mixed": partial(methods.ace, threshold=0, eps_relative=1e-3),
    "core_space_ties": partial(methods.core_space, rule="ties"),
    "knots_layer": partial(methods.knots, density=0.2, trim="layer"),
    "knots_sum": partial(methods.knots, rule="sum"),
    "localize_and_stitch_data_free": partial(methods.localize_and_stitch, data_free=True),
    "localize_and_stitch": seeing(
        methods.localize_and_stitch, density=0.1, learning_rate=1e3, epochs=2
    ),
    "free_merging_whole": seeing(methods.free_merging, top="whole", rescale="paper", combine="add"),
    "lines_ties": partial(methods.lines, base="ties", base_knobs={"density": 0.2}, beta=0.5),
    "ada_merging": seeing(methods.ada_merging, steps=3),
    "ada_merging_trimmed": seeing(methods.ada_merging, steps=3, by="task", density=0.2),
    "atm": seeing(methods.atm, rounds=2, steps_per_round=2),
    "atm_ties": seeing(
        methods.atm,
        rounds=2,
        epochs=1,
        start="weight_average",
        merge="ties",
        merge_knobs={"density": 0.5},
    ),
    "merge3": seeing(methods.merge3, population=4, generations=1, anchors=2, dimensions=1),
    "wudi": partial(methods.wudi, solver="adam", iterations=20, learning_rate=1e-5),
    "wudi_closed_form": partial(
        methods.wudi, solver="closed_form", iterations=1, learning_rate=1e-5
    ),
}
ONE_EACH = ["individual", "tsv_compress"]
ADAPTED = ["surgery"]  # one vector, served to each task with an adapter of its own
# Of each task its expert alone, beside what all share.
ROUTED = ["esm_plus_plus", "free_merging", "free_merging_whole", "twin_merging", "we_moe"]
# Of what is not a matrix these have the mean, the others their own rule.
OTHERS_ARE_AVERAGED = [
    "ace", "ace_mixed", "cart", "core_space", "core_space_ties", "dc_merge", "fr_merging",
    "iso_c", "iso_c_spanned", "iso_cts",
    "knots", "knots_layer", "knots_sum", "tsv_low_rank", "tsv_merge", "tsv_merge_svd", "wudi",
    "wudi_closed_form",
]  # fmt: skip
MASKS = ["magnitude_mask", "tall_mask_ta", "tall_mask_ties", "emr"]  # of each its own, made of all
# How often a method reads every delta before the first layer is served.
PASSES = {
    **dict.fromkeys(["ties", "ties_sum", "dare_ties"], 1),
    **dict.fromkeys(["consensus_ties", "magnitude_mask", "tall_mask_ties"], 1),
    **dict.fromkeys(["emr", "lata", "lata_logarithmic", "lata_threshold", "fr_merging_share"], 1),
    "knots": 1,  # of matrices
    "localize_and_stitch_data_free": 1,
    "lines_ties": 3,  # that of ties, one of what it merges, one of the sum
    "pcb": 2,  # the ends of magnitudes, then those of scores
}
# Of each layer they first look for bounds of their own.
BOUNDED = ["breadcrumbs", "ties_tensor"]
# They read all layers, for each step of learning, when the first is wanted.
LEARNING = ["ada_merging", "ada_merging_trimmed", "atm", "atm_ties", "merge3"]
# They fine-tune the tasks themselves: what is served is not a function of task vectors alone.
FINE_TUNING = ["atm", "atm_ties"]
# They run the network: when the first matrix is wanted, they compute of all layers, and once.
AT_ONCE = ["localize_and_stitch", "regmean_plus_plus"]
# They start from a vector that another method merges.
STARTED = ["mats", "anchored_regression", "anchored_regression_data_free"]
# Of the vectors that `random_vectors` makes; of all but these methods they are all layers.
READ_BEFORE = {"knots": ["in_proj_weight", "proj", "c_proj.weight", "frozen"]}
ROUNDED = {
    # It divides by eigenvalues down to 1e-10 of the largest: of float64's 16 digits 6 are left.
    "wudi_closed_form": {"rtol": 1e-6, "atol": 1e-6},
    # Its eps is 1e-7 of the squares of these deltas, which leaves 9 digits.
    "ace": {"rtol": 1e-7, "atol": 1e-7},
}
# Deltas of another scale: of all but these they give the same merge at that scale.
OF_ONE_SCALE = {
    "ace": "eps is added to squares of deltas",
    "ace_mixed": "logarithms of squares of deltas tell how much tasks differ",
    **dict.fromkeys(LEARNING, "what the network makes of the deltas depends on their size"),
    "localize_and_stitch": "what the network makes of the deltas depends on their size",
    "pcb": "tanh tells how far products of deltas are from 1",
    "wudi": "Adam's steps have a given length",
}
ONE_TASK_IS_CHANGED = {
    "zero_shot": "nothing of it is served",
    **dict.fromkeys(
        [
            "ties",
            "ties_sum",
            "ties_tensor",
            "dare_ties",
            "breadcrumbs",
            "magnitude_mask",
            "tall_mask_ties",
            "lines_ties",
            "localize_and_stitch",
            "localize_and_stitch_data_free",
        ],
        "small entries go",
    ),
    **dict.fromkeys(["knots", "knots_layer"], "small entries along its singular vectors go"),
    "dare_ta": "half of its entries are dropped",
    "consensus_ta": "no entry is wanted by two tasks",
    "consensus_ties": "no entry is wanted by two tasks",
    "pcb": "entries with a low score go",
    **dict.fromkeys(
        ["lata", "lata_logarithmic", "lata_threshold"],
        "it is its own mean, so that all its layers weigh the same, and less than 1",
    ),
    **dict.fromkeys(["fr_merging", "fr_merging_share"], "its low frequencies go"),
    **dict.fromkeys(
        ["ace", "ace_mixed"], "the mean of its rows goes, and its share in the prior row"
    ),
    **dict.fromkeys(
        ["iso_c", "iso_c_spanned", "iso_cts", "subspace_boosting"], "matrices get a new spectrum"
    ),
    "esm": "matrices get a new spectrum",
    **dict.fromkeys(LEARNING, "it goes where learning leads"),
    **dict.fromkeys(
        ["pro_distill", "surgery", "twin_merging", "we_moe"], "a share of it is served"
    ),
    "esm_plus_plus": "matrices without experts get a new spectrum",
    **dict.fromkeys(["free_merging", "free_merging_whole"], "only large entries are served"),
    "mats": "its steps end within 1e-5",
}
