"""Estimators of accuracy: exact if all items are anchors, and by their definitions."""

import pytest
import torch

from tsv_bench.methods.evolved.abilities import COMBINATIONS, combined, fitted
from tsv_bench.methods.evolved.anchors import CHOICES, choose_anchors
from tsv_bench.methods.evolved.estimators import ESTIMATORS, TOGETHER, Estimator
from tsv_bench.methods.evolved.irt import Items

SIZES = {"cars": 12, "land": 9}


def example(anchors, kind="mp_irt", combination="convex", together="joint", choose="random"):
    generator = torch.Generator().manual_seed(4)

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    items = {task: Items(normal(n, 2).abs(), normal(n)) for task, n in SIZES.items()}
    chosen = {t: choose_anchors(i, anchors, choose, generator) for t, i in items.items()}
    right = {t: torch.rand(n, generator=generator) < 0.6 for t, n in SIZES.items()}
    made = Estimator(
        kind=kind, combination=combination, together=together,
        items=items, anchors=chosen, endpoints=normal(3, 2),
    )  # fmt: skip
    return made, right, {task: right[task][chosen[task].rows] for task in SIZES}


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("combination", COMBINATIONS)
@pytest.mark.parametrize("together", TOGETHER)
@pytest.mark.parametrize("choose", CHOICES)
def test_with_all_items_as_anchors_it_is_the_accuracy(kind, combination, together, choose):
    made, right, asked = example(20, kind, combination, together, choose)
    accuracies = torch.stack([of_task.double().mean() for of_task in right.values()])
    torch.testing.assert_close(made(asked), accuracies, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("together", TOGETHER)
def test_estimates_are_those_of_the_definitions(together):
    found, wanted = {}, {}
    for kind in ESTIMATORS:
        made, _, asked = example(4, kind, together=together, choose="kmeans")
        found[kind] = made(asked)
    rows = {task: made.anchors[task].rows for task in SIZES}
    every = Items(
        torch.cat([made.items[t].discrimination[rows[t]] for t in SIZES]),
        torch.cat([made.items[t].difficulty[rows[t]] for t in SIZES]),
    )
    for number, (task, size) in enumerate(SIZES.items()):
        items, weights = made.items[task], made.anchors[task].weights
        over = every if together == "joint" else items[rows[task]]
        right = torch.cat([asked[t] for t in SIZES]) if together == "joint" else asked[task]
        mean = sum(w * float(y) for w, y in zip(weights, asked[task], strict=True))
        others = [row for row in range(size) if row not in rows[task].tolist()]

        def predicted(abilities, items=items, others=others, mean=mean, size=size):
            p = items.probabilities(abilities)
            return 4 / size * mean + (1 - 4 / size) * sum(p[row] for row in others) / len(others)

        mp = predicted(combined(over, right, made.endpoints, "convex"))
        p = predicted(fitted(over, right))
        wanted = {"mean": mean, "p_irt": p, "mp_irt": mp, "gmp_irt": mean / 2 + mp / 2}
        for kind in ESTIMATORS:
            assert float(found[kind][number]) == pytest.approx(float(wanted[kind]), abs=1e-12)


def test_the_plain_mean_needs_no_abilities():
    made, _, asked = example(4, "mean")
    assert not made._abilities(asked)
