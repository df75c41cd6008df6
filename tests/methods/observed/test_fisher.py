"""Theorems of Fisher merging, in float64."""

import pytest
import torch
from made_up.statistics import made_up_fisher
from made_up.vectors import SHAPES, close, randn, random_vectors, read

from tsv_bench import methods
from tsv_bench.task_vectors import lazy


def plain(fisher):
    return {task: dict(of_task) for task, of_task in fisher.items()}


def by_definition(weights, fisher, floor, normalize):
    """On weights: F + floor, and each task's divided by the length of its F plus the floor."""
    numerator = denominator = 0
    for weight, f, length in zip(weights, *zip(*fisher, strict=True), strict=True):
        share = (f + floor) / (length + floor if normalize else 1)
        numerator, denominator = numerator + share * weight, denominator + share
    return numerator / denominator


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("floor", [1e-6, 0.1])
def test_it_is_the_weighted_mean_of_weights(normalize, floor, monkeypatch):
    monkeypatch.setattr(lazy, "BLOCK", 60)  # rows of deltas and of F go together
    vectors = random_vectors(3)
    fisher = made_up_fisher(SHAPES, vectors)
    merged = methods.fisher(vectors, fisher=fisher, floor=floor, normalize=normalize)["task0"]
    lengths = [sum(f.square().sum() for f in of.values()) ** 0.5 for of in fisher.values()]
    for name, shape in SHAPES.items():
        base = randn(*shape)
        weights = [base + vector[name] for vector in vectors.values()]
        f = [(of[name], length) for of, length in zip(fisher.values(), lengths, strict=True)]
        expected = by_definition(weights, f, floor, normalize)
        torch.testing.assert_close(base + merged[name], expected, **close)


def test_where_no_task_is_sure_the_plain_mean_results_if_lengths_do_not_count():
    vectors = random_vectors(3)
    fisher = plain(made_up_fisher(SHAPES, vectors))
    for of_task in fisher.values():
        of_task["proj"][:5] = 0
    mean = methods.weight_average(vectors)["task0"]["proj"]
    merged = methods.fisher(vectors, fisher=fisher, normalize=False)["task0"]["proj"]
    torch.testing.assert_close(merged[:5], mean[:5], **close)
    assert not torch.isclose(merged[5:], mean[5:]).all()
    scales = torch.stack([1 / (torch.cat([f.flatten() for f in of.values()]).norm() + 1e-6)
                          for of in fisher.values()])  # fmt: skip
    deltas = torch.stack([vector["proj"] for vector in vectors.values()])
    weighted = torch.tensordot(scales / scales.sum(), deltas, dims=1)
    merged = methods.fisher(vectors, fisher=fisher)["task0"]["proj"]
    torch.testing.assert_close(merged[:5], weighted[:5], **close)


def test_no_information_at_all_is_the_mean():
    vectors = random_vectors(3)
    nothing = {t: {n: torch.zeros(s).double() for n, s in SHAPES.items()} for t in vectors}
    for normalize in (True, False):
        merged = read(methods.fisher(vectors, fisher=nothing, normalize=normalize))
        torch.testing.assert_close(merged, read(methods.weight_average(vectors)), **close)


def test_the_surer_task_wins_an_entry():
    vectors = random_vectors(2)
    sure = {n: torch.full(s, 1e6).double() for n, s in SHAPES.items()}
    fisher = {"task0": sure, "task1": {n: torch.zeros_like(f) for n, f in sure.items()}}
    merged = methods.fisher(vectors, fisher=fisher, floor=1e-6, normalize=False)["task0"]
    torch.testing.assert_close(merged["proj"], vectors["task0"]["proj"], **close)


def test_a_task_whose_information_is_scaled_weighs_the_same_if_normalized():
    vectors = random_vectors(3)
    fisher = plain(made_up_fisher(SHAPES, vectors))
    merged = read(methods.fisher(vectors, fisher=fisher, floor=1e-15))
    fisher["task1"] = {name: 1e4 * f for name, f in fisher["task1"].items()}
    other = read(methods.fisher(vectors, fisher=fisher, floor=1e-15))
    # Where F is zero the floor decides, which is of a smaller share of a longer F.
    for name, delta in other["task0"].items():
        near = torch.isclose(delta, merged["task0"][name], rtol=1e-6, atol=1e-6)
        zero = torch.stack([f[name] == 0 for f in fisher.values()]).all(dim=0)
        assert (near | zero).all()


def test_layers_without_it_are_averaged():
    vectors = random_vectors(3)
    fisher = plain(made_up_fisher(SHAPES, vectors))
    del fisher["task1"]["proj"]
    merged, mean = methods.fisher(vectors, fisher=fisher), methods.weight_average(vectors)
    assert torch.equal(merged["task0"]["proj"], mean["task0"]["proj"])
    assert not torch.allclose(merged["task0"]["bias"], mean["task0"]["bias"])


def wrong(fisher, kind):
    f = fisher["task1"]["proj"]
    if kind == "shape":
        fisher["task1"]["proj"] = f[:3]
    else:
        f[0, 0] = {"negative": -1, "nan": torch.nan, "infinite": torch.inf}[kind]
    return fisher


@pytest.mark.parametrize("kind", ["shape", "negative", "nan", "infinite"])
def test_what_is_no_information_of_the_layer_is_refused_with_task_and_layer(kind):
    vectors = random_vectors(3)
    fisher = wrong(plain(made_up_fisher(SHAPES, vectors)), kind)
    served = methods.fisher(vectors, fisher=fisher, normalize=False)
    message = r"with shape \(3, 12\); the layer" if kind == "shape" else "with negative entries"
    with pytest.raises(ValueError, match=f"information of task1 has 'proj' {message}"):
        served["task0"]["proj"]


def test_a_task_without_it_is_named_once_a_layer_is_wanted():
    vectors = random_vectors(2)
    served = methods.fisher(vectors, fisher={"task0": {}})
    with pytest.raises(ValueError, match="no Fisher information of task1, but of task0"):
        served["task0"]["proj"]


@pytest.mark.parametrize("floor", [0, -1, float("nan")])
def test_a_floor_that_is_none_is_refused(floor):
    with pytest.raises(ValueError, match="floor=.* is not a positive number"):
        methods.fisher({}, fisher={}, floor=floor)
