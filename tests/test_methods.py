"""What holds for every method: order, inputs, laziness, degenerate suites, knobs."""

import weakref
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from made_up_vectors import close, randn, random_vectors, read
from omegaconf import OmegaConf

from tsv_bench import methods
from tsv_bench.methods.singular_vectors import tsv_interference_only, tsv_low_rank

METHODS = {
    "zero_shot": methods.zero_shot,
    "individual": methods.individual,
    "weight_average": methods.weight_average,
    "task_arithmetic": methods.task_arithmetic,
    "ties": partial(methods.ties, density=0.2),
    "ties_sum": partial(methods.ties, density=0.2, merge="sum"),
    "magmax": methods.magmax,
    "breadcrumbs": partial(methods.breadcrumbs, density=0.15, outlier_fraction=0.006),
    "dare_ta": partial(methods.dare_ta, density=0.5, seed=0),
    "dare_ties": partial(methods.dare_ties, density=0.5, trim_density=0.2, seed=0),
    "consensus_ta": partial(methods.consensus_ta, mask_lambda=0.4, min_tasks=2),
    "consensus_ties": partial(methods.consensus_ties, density=0.2, mask_lambda=0.4, min_tasks=2),
    "magnitude_mask": partial(methods.magnitude_mask, density=0.1),
    "tall_mask_ta": partial(methods.tall_mask_ta, mask_lambda=0.4),
    "tall_mask_ties": partial(methods.tall_mask_ties, density=0.2, mask_lambda=0.4),
    "tsv_merge": methods.tsv_merge,
    "tsv_merge_eigen": partial(methods.tsv_merge, polar="eigen"),
    "tsv_low_rank": tsv_low_rank,
    "tsv_interference_only": tsv_interference_only,
    "tsv_compress": methods.tsv_compress,
    "wudi": partial(methods.wudi, solver="adam", iterations=20, learning_rate=1e-5),
    "iso_c": methods.iso_c,
    "iso_cts": methods.iso_cts,
    "subspace_boosting": methods.subspace_boosting,
    "svc": partial(methods.svc, base_scale=1.0),
    "cart": methods.cart,
    "dc_merge": partial(methods.dc_merge, density=1.0),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
ONE_EACH = ["individual", "tsv_compress"]
MASKS = ["magnitude_mask", "tall_mask_ta", "tall_mask_ties"]  # of each task its own
TRIMMED = ["ties", "ties_sum", "dare_ties", "consensus_ties", "magnitude_mask", "tall_mask_ties"]
# What is masked or dropped is missing also when there is nothing to merge with.
NOT_ALL_OF_ONE_TASK = {"zero_shot", "breadcrumbs", "dare_ta", "consensus_ta", *TRIMMED}
NEW_SPECTRUM = {"iso_c", "iso_cts", "subspace_boosting"}  # of one task too


def copied(vectors):
    return {task: {n: d.clone() for n, d in vector.items()} for task, vector in vectors.items()}


@every_method
def test_task_order_does_not_matter(method):
    vectors = random_vectors(4)
    flipped = dict(reversed(vectors.items()))
    served, other = read(method(vectors)), read(method(flipped))
    torch.testing.assert_close(dict(sorted(other.items())), served, **close)


@every_method
def test_inputs_are_left_alone_and_the_result_is_repeatable(method):
    vectors = random_vectors(3)
    before = copied(vectors)
    first, second = read(method(vectors)), read(method(vectors))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(vectors, before, rtol=0, atol=0)


@every_method
def test_every_task_is_served_every_layer(method):
    vectors = random_vectors(3)
    served = method(vectors)
    assert list(served) == list(vectors)
    for task, vector in served.items():
        assert list(vector) == list(vectors[task])
        for name, delta in vector.items():
            assert delta.shape == vectors[task][name].shape
            assert delta.dtype == torch.float64
        assert not vector["frozen"].any()


@pytest.mark.parametrize("name", METHODS)
def test_one_vector_for_all_is_one_object(name):
    served = METHODS[name](random_vectors(3))
    own = name in [*ONE_EACH, *MASKS]
    assert len({id(vector) for vector in served.values()}) == (3 if own else 1)


@pytest.mark.parametrize("name", sorted(set(METHODS) - NOT_ALL_OF_ONE_TASK - NEW_SPECTRUM))
def test_one_task_is_served_unchanged(name):
    vectors = random_vectors(1)
    torch.testing.assert_close(read(METHODS[name](vectors)), vectors, **close)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(set(METHODS) - {"individual"}))
def test_half_precision_is_worked_on_in_float32(name, dtype):
    vectors = random_vectors(3, dtype)
    wide = {task: {n: d.float() for n, d in vector.items()} for task, vector in vectors.items()}
    served, expected = read(METHODS[name](vectors)), read(METHODS[name](wide))
    torch.testing.assert_close(served, expected, rtol=0, atol=0)


def degenerate(case):
    if case == "T > r":
        return random_vectors(15)
    if case == "T = 1":
        return random_vectors(1)
    vectors = random_vectors(3)
    first = vectors["task0"]
    for t, vector in enumerate(vectors.values()):
        for name, delta in vector.items():
            if case == "all zero" or (case == "one zero task" and t == 1):
                vector[name] = torch.zeros_like(delta)
            elif case == "identical":
                vector[name] = first[name].clone()
            elif case == "collinear":
                vector[name] = (t - 1.5) * first[name]
            elif case == "rank one" and delta.ndim == 2:
                vector[name] = delta[:, :1] @ delta[:1]
    return vectors


CASES = ["identical", "collinear", "rank one", "all zero", "one zero task", "T > r", "T = 1"]


@every_method
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_suites_give_finite_repeatable_vectors(method, case, dtype):
    vectors = degenerate(case)
    for vector in vectors.values():
        vector.update({name: delta.to(dtype) for name, delta in vector.items()})
    served, again = read(method(vectors)), read(method(copied(vectors)))
    torch.testing.assert_close(served, again, rtol=0, atol=0)
    for vector in served.values():
        for name, delta in vector.items():
            assert delta.isfinite().all(), name
            assert delta.dtype == dtype
            if case == "all zero":
                assert not delta.any(), name


@every_method
def test_no_tasks_only_checks_the_knobs(method):
    assert method({}) == {}


@pytest.mark.parametrize(
    ("method", "knobs", "message"),
    [
        (methods.ties, {"density": 0}, r"density=0 is not in \(0, 1\]"),
        (methods.ties, {"density": 20}, r"density=20 is not in \(0, 1\]"),
        (methods.ties, {"density": float("nan")}, "density=nan"),
        (methods.ties, {"density": 0.2, "merge": "max"}, "merge='max'.*'mean', 'sum'"),
        (methods.tsv_merge, {"polar": "qr"}, "polar='qr'.*'eigen', 'svd'"),
        (methods.tsv_merge, {"rank_fraction": 0.0}, "at least one and at most all"),
        (methods.tsv_compress, {"rank_fraction": 1.5}, "at least one and at most all"),
        (tsv_low_rank, {"rank_fraction": 1.5}, "at least one and at most all"),
        (tsv_low_rank, {"svd": "qr"}, "svd='qr'"),
        (tsv_interference_only, {"polar": "qr"}, "polar='qr'.*'eigen', 'svd'"),
        (tsv_interference_only, {"exclude": "proj"}, "exclude='proj'"),
    ],
)
def test_knobs_out_of_range_are_refused_before_anything_is_read(method, knobs, message):
    with pytest.raises(ValueError, match=message):
        method({}, **knobs)


class Watched(Mapping):
    """A lazy task vector that counts how many of the tensors it gave are alive."""

    def __init__(self, vector, alive, reads):
        self.vector, self.alive, self.reads = vector, alive, reads

    def __getitem__(self, name):
        delta = self.vector[name].clone()
        self.reads.append((name, len(self.alive) + 1))
        self.alive.add(delta)
        return delta

    def shape(self, name):
        return self.vector[name].shape

    def dtype(self, name):
        return self.vector[name].dtype

    def __iter__(self):
        return iter(self.vector)

    def __len__(self):
        return len(self.vector)


class WeakTensors:
    def __init__(self):
        self.refs = {}

    def add(self, tensor):
        self.refs[id(tensor)] = weakref.ref(tensor)

    def __len__(self):
        return sum(ref() is not None for ref in self.refs.values())


def watch(vectors):
    """Watched vectors and their reads, (layer, tensors then alive).

    The type checker of the tests looks at a mapping's first item: it is given one of its own.
    """
    alive, reads = WeakTensors(), []
    watched = {t: Watched({"first": randn(2)} | v, alive, reads) for t, v in vectors.items()}
    return watched, reads


def but_the_first(reads):
    return [(layer, alive) for layer, alive in reads if layer != "first"]


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"zero_shot", *ONE_EACH}))
def test_merging_reads_one_layer_of_every_task_when_it_is_wanted(name):
    vectors = random_vectors(4)
    watched, reads = watch(vectors)
    served, layers = METHODS[name](watched)["task0"], list(vectors["task0"])
    before = [layer for layer, _ in but_the_first(reads)]
    if name in TRIMMED:  # the thresholds take four passes, each settles 16 of 64 bits
        assert Counter(before) == dict.fromkeys(layers, 4 * 4)
    else:
        assert before == []
    reads.clear()
    for layer in layers:
        served[layer]
    reads = but_the_first(reads)
    assert [layer for layer, _ in reads] == [layer for layer in layers for _ in range(4)]
    assert max(alive for _, alive in reads) <= 4


@pytest.mark.parametrize("name", ["zero_shot", *ONE_EACH])
def test_serving_each_its_own_reads_on_access(name):
    watched, reads = watch(random_vectors(4))
    served = METHODS[name](watched)
    assert but_the_first(reads) == []
    served["task2"]["proj"]
    assert but_the_first(reads) == [("proj", 1)]


CONF = Path(__file__).parents[1] / "conf" / "method"


@pytest.mark.parametrize(
    ("name", "denominator"),
    [
        ("task_arithmetic", 30),
        ("ties", 30),
        ("tsv_merge", 10),
        ("tsv_low_rank", 10),
        ("tsv_interference_only", 10),
    ],
)
def test_alphas_are_the_papers_grid_to_the_last_digit(name, denominator):
    alphas = list(OmegaConf.load(CONF / f"{name}.yaml").alphas)
    assert alphas == [k / denominator for k in range(1, 31)]


@pytest.mark.parametrize("name", ["zero_shot", "individual", "weight_average", "tsv_compress"])
def test_methods_that_fix_alpha_have_one_candidate(name):
    assert list(OmegaConf.load(CONF / f"{name}.yaml").alphas) == [1.0]


@pytest.mark.gpu
@pytest.mark.parametrize("name", METHODS)
def test_methods_run_where_their_vectors_are(name):
    vectors = random_vectors(3)
    moved = {task: {n: d.cuda() for n, d in vector.items()} for task, vector in vectors.items()}
    served, expected = read(METHODS[name](moved)), read(METHODS[name](vectors))
    assert all(d.is_cuda for vector in served.values() for d in vector.values())
    torch.testing.assert_close(served, expected, check_device=False, **close)
