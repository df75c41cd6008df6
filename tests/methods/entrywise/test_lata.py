"""Theorems of LATA."""

import math

import pytest
import torch
from made_up.vectors import close, randn, random_vectors, read

from tsv_bench import methods
from tsv_bench.methods.entrywise.lata import layer_weights, similarities
from tsv_bench.task_vectors.lazy import lazy_vectors

linear = {"drop": "linear", "threshold": 0.95}
logarithmic = {"drop": "logarithmic", "threshold": 0.95}


def by_threshold(threshold):
    return {"drop": "threshold", "threshold": threshold}


def reference(vectors, weight):
    """From the definition; no two cosines are equal."""
    taus = list(vectors.values())
    changed = [name for name in taus[0] if taus[0][name].any()]
    mean = {name: torch.stack([tau[name] for tau in taus]).mean(0) for name in changed}
    merged = {name: torch.zeros_like(delta) for name, delta in taus[0].items()}
    for tau in taus:
        cosine = {
            name: torch.cosine_similarity(tau[name].flatten(), mean[name].flatten(), dim=0).item()
            for name in changed
        }
        for rank, name in enumerate(sorted(changed, key=cosine.get, reverse=True), start=1):
            merged[name] += weight(rank, len(changed), cosine[name]) * tau[name]
    return merged


WEIGHTS = [
    (linear, lambda rank, num_layers, cosine: (rank - 1) / (num_layers - 1)),
    (logarithmic, lambda rank, num_layers, cosine: math.log(rank) / math.log(num_layers)),
    (by_threshold(0.5), lambda rank, num_layers, cosine: 1 if cosine < 0.5 else 0),
]


@pytest.mark.parametrize(("knobs", "weight"), WEIGHTS, ids=["linear", "logarithmic", "threshold"])
def test_lata_is_its_definition(knobs, weight):
    vectors = random_vectors(4)
    for vector in vectors.values():
        del vector["logit_scale"]  # of one entry: its cosine is 1 or -1 for several tasks alike
    torch.testing.assert_close(
        dict(methods.lata(vectors, **knobs)["task0"].items()), reference(vectors, weight), **close
    )


def test_with_a_threshold_that_no_layer_reaches_it_is_task_arithmetic():
    vectors = {"a": {"x": randn(5), "y": randn(5, 5)}, "b": {"x": randn(5), "y": randn(5, 5)}}
    served, total = methods.lata(vectors, **by_threshold(1)), methods.task_arithmetic(vectors)
    torch.testing.assert_close(read(served), read(total), **close)


def test_layers_that_all_tasks_changed_alike_are_dropped_first():
    same = randn(20)
    vectors = {t: {"alike": same, "own": randn(20), "mixed": same + randn(20)} for t in "abc"}
    for knobs in (linear, logarithmic, by_threshold(0.99)):
        served = methods.lata(vectors, **knobs)["a"]
        assert not served["alike"].any()
        assert served["own"].any()


def test_the_least_similar_layer_keeps_its_whole_weight():
    weights = layer_weights([{"x": 0.9, "y": 0.1, "z": 0.5}], "linear", 0.95)
    assert weights == [{"x": 0, "y": 1, "z": 0.5}]
    weights = layer_weights([{"x": 0.9, "y": 0.1, "z": 0.5}], "logarithmic", 0.95)
    assert weights == [{"x": 0, "y": 1, "z": math.log(2) / math.log(3)}]


def test_layers_alike_share_their_weight_whatever_their_order():
    """Of one task all cosines are 1 but for rounding: rounding must not rank its layers."""
    vectors = random_vectors(1)
    half = {name: delta / 2 for name, delta in vectors["task0"].items()}
    torch.testing.assert_close(
        dict(methods.lata(vectors, **linear)["task0"].items()), half, **close
    )


def test_a_layers_scale_does_not_change_its_weight():
    vectors = random_vectors(3)
    larger = {t: {n: d * (1 + 9 * (n == "proj")) for n, d in v.items()} for t, v in vectors.items()}
    served, other = (methods.lata(v, **linear)["task0"] for v in (vectors, larger))
    for name, delta in served.items():
        torch.testing.assert_close(other[name], delta * (1 + 9 * (name == "proj")), **close)


def test_layers_in_blocks_have_the_similarity_of_the_whole(monkeypatch):
    vectors = lazy_vectors(random_vectors(3).values())
    whole = similarities(vectors)
    monkeypatch.setattr("tsv_bench.task_vectors.lazy.BLOCK", 64)
    for found, expected in zip(similarities(vectors), whole, strict=True):
        assert found == pytest.approx(expected, abs=2e-9)  # the last of its decimals
