"""Candidates as weighted sums of contributions: the methods themselves at some weights."""

import pytest
import torch
from made_up.vectors import close, random_vectors, read

from tsv_bench import methods
from tsv_bench.methods.evolved import contributions as module
from tsv_bench.methods.evolved.contributions import Base, Contributions

KNOBS = {
    "task_arithmetic": {},
    "ties": {"density": 0.3},
    "ties_sum": {"density": 0.3, "merge": "sum"},
    "dare_ties": {"density": 0.5, "trim_density": 0.2, "seed": 3},
    "tsv_merge": {},
    "tsv_merge_svd": {"rank_fraction": 0.5, "polar": "svd", "split_qkv": True},
}
named = pytest.mark.parametrize("name", KNOBS)


def base_of(name):
    return name.removesuffix("_sum").removesuffix("_svd")


def made(name, vectors):
    return Contributions(vectors, Base.of(base_of(name), KNOBS[name]))


def run(name, vectors):
    return read(getattr(methods, base_of(name))(vectors, **KNOBS[name]))["task0"]


def candidate(found, weights):
    numbers = torch.tensor(weights, dtype=torch.float64)
    return dict(found.candidate(lambda name: numbers).items())


@named
@pytest.mark.parametrize("kept", [True, False])
def test_with_weights_of_one_it_is_the_method(name, kept, monkeypatch):
    vectors = random_vectors(3)
    if not kept:
        monkeypatch.setattr(module, "KEPT", 0)
    found = made(name, vectors)
    torch.testing.assert_close(candidate(found, [1.0] * 3), run(name, vectors), **close)
    assert bool(found._kept) == kept
    found.forget()
    torch.testing.assert_close(candidate(found, [1.0] * 3), run(name, vectors), **close)
    assert not found._kept


@pytest.mark.parametrize("name", ["task_arithmetic", "tsv_merge", "tsv_merge_svd"])
def test_with_other_weights_it_is_the_method_on_vectors_times_these(name):
    vectors, weights = random_vectors(3), [0.3, 1.2, 0.7]
    scaled = {
        task: {layer: weight * delta for layer, delta in vector.items()}
        for weight, (task, vector) in zip(weights, vectors.items(), strict=True)
    }
    found = candidate(made(name, vectors), weights)
    torch.testing.assert_close(found, run(name, scaled), **close)


@named
def test_equal_weights_are_the_methods_alpha(name):
    vectors = random_vectors(3)
    wanted = {layer: 0.4 * delta for layer, delta in run(name, vectors).items()}
    torch.testing.assert_close(candidate(made(name, vectors), [0.4] * 3), wanted, **close)


@named
def test_a_task_that_weighs_nothing_adds_nothing(name):
    vectors = random_vectors(2)
    found = made(name, vectors)
    one, other = candidate(found, [1.0, 0.0]), candidate(found, [0.0, 1.0])
    both = candidate(found, [1.0, 1.0])
    torch.testing.assert_close({n: one[n] + other[n] for n in one}, both, **close)


@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
def test_slerp_has_one_number_its_place(t):
    vectors = random_vectors(2)
    found = Contributions(vectors, Base.of("slerp", None))
    assert found.columns == ["t"]
    wanted = read(methods.slerp(vectors, t=t))["task0"]
    torch.testing.assert_close(candidate(found, [t]), wanted, **close)


def test_layers_may_have_other_weights():
    vectors = random_vectors(2)
    found = made("task_arithmetic", vectors)
    numbers = {"bias": torch.tensor([1.0, 0.0])}
    vector = found.candidate(lambda name: numbers.get(name, torch.tensor([0.0, 2.0])))
    torch.testing.assert_close(vector["bias"], vectors["task0"]["bias"], **close)
    torch.testing.assert_close(vector["proj"], 2 * vectors["task1"]["proj"], **close)


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("fisher", None, "base='fisher' is not a merge whose coefficients are searched"),
        ("ties", {"density": 2}, r"density=2 is not in \(0, 1\]"),
        ("tsv_merge", {"density": 0.2}, "base_knobs has 'density', which base=tsv_merge"),
        ("slerp", {"t": 0.5}, "base_knobs has t, which is what merge3 searches"),
    ],
)
def test_another_base_or_knob_is_refused(name, knobs, message):
    with pytest.raises(ValueError, match=message):
        Base.of(name, knobs)
