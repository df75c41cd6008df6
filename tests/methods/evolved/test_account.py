"""What a search has found, of a few candidates made up."""

import pytest
import torch

from tsv_bench.methods.evolved.account import Searched, mean_error
from tsv_bench.methods.evolved.respondents import Responses
from tsv_bench.methods.evolved.search import Generation

NAN = float("nan")


def searched(estimates, objectives=("mean",)):
    estimates = torch.tensor(estimates, dtype=torch.float64)
    fitness = estimates if len(objectives) > 1 else estimates.mean(dim=1, keepdim=True)
    genotypes = torch.arange(len(estimates), dtype=torch.float64)[:, None]
    responses = Responses(["pretrained"], torch.zeros(1, 20).bool(), {"a": 10, "b": 10}, 1)
    return Searched(
        responses=responses, objectives=objectives, num_asked=4, estimates=estimates,
        generations=[Generation(genotypes, fitness.nan_to_num(nan=-1))],
    )  # fmt: skip


def test_the_best_are_those_of_the_largest_means_without_doubles_and_failures():
    found = searched([[0.1, 0.1], [NAN, 0.9], [0.5, 0.5], [0.4, 0.4]])
    assert found.best(3) == [2, 3, 0] and found.last == [0, 2, 3]
    found.genotypes[3] = found.genotypes[2]
    assert found.best(3) == [2, 0]
    with pytest.raises(ValueError, match="none of the 2 candidates could be asked"):
        searched([[NAN, NAN]] * 2).best(3)


def test_with_several_objectives_they_are_of_the_front():
    found = searched([[0.9, 0.1], [0.8, 0.05], [0.1, 0.9], [0.3, 0.3]], ("a", "b"))
    assert found.front.tolist() == [True, False, True, True]
    assert sorted(found.best(4)) == [0, 2, 3]


def test_the_chosen_one_is_best_on_all_items_and_earlier_on_a_tie():
    found = searched([[0.5, 0.5], [0.4, 0.4], [0.3, 0.3]])
    answers = {0.0: None, 1.0: torch.tensor([0.6, 0.6]), 2.0: torch.tensor([0.6, 0.6])}
    for index in (0, 1, 2, 1):
        found.ask_all(index, lambda genes: answers[float(genes)])

    def fitness(accuracies):
        return accuracies.mean(dim=1)

    assert found.choose([0, 1, 2], fitness) == 1
    with pytest.raises(ValueError, match="none of the best candidates could be asked all items"):
        found.choose([0], fitness)
    assert found.images["on_all"] == 3 * 20
    account = found.account(1, [0, 1], [{"a": 1.0}])
    assert account["last_generation"]["error"] == pytest.approx(0.2)
    assert account["chosen"]["accuracy"] == {"a": pytest.approx(0.6), "b": pytest.approx(0.6)}
    assert "12 items asked in place of 60. The chosen one is at 60.0 %" in found.sentence(1)


def test_the_error_is_that_of_the_mean_over_groups():
    assert mean_error([]) is None
    pairs = [(torch.tensor([0.5, 0.7]), torch.tensor([0.6, 0.4]))]
    assert mean_error(pairs) == pytest.approx(0.1)
