"""Who is asked before the search, and what becomes of their answers."""

import logging

import pytest
import torch
from made_up.vectors import close, random_vectors

from tsv_bench import methods
from tsv_bench.methods.evolved.respondents import Responses, ask, respondents_of


class Scripted:
    """An examiner that answers as it was told, by the model's name."""

    seed, asks_some = 0, True

    def __init__(self, told):
        self.told, self.asked, self.store = told, [], {}

    def answers(self, name, vector, items=None):
        self.asked.append(name)
        found = self.told.get(name, self.told.get("others"))
        return found and {group: torch.tensor(right) for group, right in found.items()}

    def kept(self, name):
        return self.store.get(name)

    def keep(self, name, tensors):
        self.store[name] = tensors

    def note(self, name, content):
        pass


TOLD = {"others": {"task1": [True, False, True], "task0": [False, True]}}
ENDPOINTS = ["pretrained", "task0", "task1"]


def respondents():
    return respondents_of(random_vectors(2), (0.2, 0.5))


def test_endpoints_average_and_sums_are_asked():
    vectors = random_vectors(2)
    found = respondents_of(vectors, (0.2, 0.5))
    names = [respondent.name for respondent in found]
    assert names == [*ENDPOINTS, "average", "sum times 0.2", "sum times 0.5"]
    assert not any(found[0].vector[layer].any() for layer in found[0].vector)
    average, total = methods.weight_average(vectors), methods.task_arithmetic(vectors)
    for layer in vectors["task0"]:
        torch.testing.assert_close(found[3].vector[layer], average["task0"][layer], **close)
        torch.testing.assert_close(found[5].vector[layer], 0.5 * total["task0"][layer], **close)


def test_answers_are_in_the_order_of_the_groups_names_and_kept():
    examiner = Scripted(TOLD)
    responses = ask(examiner, respondents(), 3)
    assert responses.sizes == {"task0": 2, "task1": 3}
    assert responses.right.tolist() == [[False, True, True, False, True]] * 6
    assert responses.accuracies("task1") == {"task0": 0.5, "task1": pytest.approx(2 / 3)}
    again = Scripted({})
    again.store = examiner.store
    assert ask(again, respondents(), 3).right.equal(responses.right) and again.asked == []


def test_a_merge_that_cannot_be_asked_is_left_out_and_an_endpoint_ends_it(caplog):
    told = TOLD | {"average": None, "sum times 0.5": {"task0": [True], "task1": [True]}}
    with caplog.at_level(logging.WARNING):
        responses = ask(Scripted(told), respondents(), 3)
    assert list(responses.names) == [*ENDPOINTS, "sum times 0.2"]
    assert "sum times 0.5 is left out: it answered 1 items of task0" in caplog.text
    with pytest.raises(ValueError, match="could not ask task1, one of the models that are merged"):
        ask(Scripted(TOLD | {"task1": None}), respondents(), 3)


def test_accuracies_are_divided_by_those_of_the_own_model_else_of_the_best():
    sizes = {"cars": 2, "other": 2, "zero": 2}
    right = [[1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]
    made = Responses(
        ["pretrained", "cars", "land", "average"], torch.tensor(right).bool(), sizes, 3
    )
    assert made.normalizer == {"cars": 1.0, "other": 1.0, "zero": 1.0}
    assert made.accuracies("cars") == {"cars": 1.0, "other": 0.5, "zero": 0.0}
