"""The fit of item response theory: on answers that are drawn from a known model."""

import pytest
import torch

from tsv_bench.methods.evolved.irt import DIFFICULTY, Items, fit


def simulated(respondents, items, dimensions):
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    truth = Items(1 + 0.3 * normal(items, dimensions).abs(), normal(items))
    abilities = 1.5 * normal(respondents, dimensions)
    drawn = torch.rand(respondents, items, dtype=torch.float64, generator=generator)
    return truth, abilities, drawn < truth.probabilities(abilities)


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def test_known_abilities_and_difficulties_are_recovered():
    truth, abilities, answers = simulated(60, 400, 1)
    items, found = fit(answers, 1, seed=0)
    # 400 answers tell an ability up to 1 / sqrt(400 * 0.2) or so, a tenth of the abilities' spread:
    # a correlation of 0.995. 60 answers tell a difficulty up to 0.3 to 0.4 of its: 0.9.
    assert correlation(abilities[:, 0], found[:, 0]) > 0.98
    assert correlation(truth.difficulty, items.difficulty) > 0.9
    assert (items.discrimination >= 0).all()


def test_probabilities_of_several_dimensions_are_recovered():
    truth, abilities, answers = simulated(60, 400, 3)
    items, found = fit(answers, 3, seed=0)
    wanted, fitted = truth.probabilities(abilities), items.probabilities(found)
    blind = (answers.double().mean() - wanted).abs().mean()
    # Abilities themselves may be rotated into each other. Far nearer than the mean of all.
    assert (fitted - wanted).abs().mean() < blind / 3


@pytest.mark.parametrize("answer", [True, False])
def test_answers_that_are_all_right_or_all_wrong_give_finite_numbers(answer):
    items, abilities = fit(torch.full((5, 30), answer), 2, seed=0)
    probabilities = items.probabilities(abilities)
    assert probabilities.isfinite().all()
    assert ((probabilities > 0.5) == answer).all()
    assert items.difficulty.std() < DIFFICULTY


def test_the_same_seed_gives_the_same_fit():
    _, _, answers = simulated(8, 20, 2)
    one, other = fit(answers, 2, seed=3), fit(answers, 2, seed=3)
    assert one[1].equal(other[1]) and one[0].difficulty.equal(other[0].difficulty)


def test_items_are_chosen_by_rows():
    items = Items(torch.eye(3, dtype=torch.float64), torch.arange(3.0, dtype=torch.float64))
    assert items[torch.tensor([2])].difficulty.tolist() == [2.0] and len(items[1:]) == 2
    abilities = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert items.logits(abilities).tolist() == [1.0, 1.0, 1.0]
