"""Rounds that are killed: they end as if they had not been, wherever that was."""

import pytest
import torch
from made_up.bench import MadeUpBench
from made_up.vectors import random_vectors, read

from tsv_bench import methods
from tsv_bench.state_dicts.steps.unfinished import Unfinished

TASKS = ["task0", "task1"]


class Killed(BaseException):
    """No error that code could catch."""


class Mortal(MadeUpBench):
    """A bench that keeps what it is given in a store, and dies at the n-th call of a method."""

    def __init__(self, store, call="", number=0):
        super().__init__(TASKS)
        self._store, self._call, self._left = store, call, number
        self.tuned, self.reported = [], []

    def _live(self, call):
        if call == self._call:
            self._left -= 1
            if self._left < 0:
                raise Killed

    def kept(self, name):
        return self._store.get(name)

    def keep(self, name, tensors):
        self._live("before keep")
        self._store[name] = {n: tensor.clone() for n, tensor in tensors.items()}
        self._live("after keep")

    def fine_tune(self, task, weights, *, name, **how):
        self._live("fine_tune")
        self.tuned.append(name)
        return super().fine_tune(task, weights, name=name, **how)

    def report(self, name, step, vector):
        self._live("report")
        self.reported.append(step)


KNOBS = {
    "mean": {"rounds": 3, "steps_per_round": 2, "start": "task_arithmetic", "start_alpha": 0.3},
    "ties": {"rounds": 2, "epochs": 1, "merge": "ties", "merge_knobs": {"density": 0.5}},
}


@pytest.mark.parametrize("call", ["before keep", "after keep", "fine_tune", "report"])
@pytest.mark.parametrize("name", KNOBS)
def test_wherever_it_is_killed_it_ends_the_same(name, call):
    vectors, knobs = random_vectors(2), KNOBS[name]
    whole = Mortal({})
    expected = read(methods.atm(vectors, bench=whole, **knobs))["task0"]
    for number in range(100):
        store = {}
        killed = Mortal(store, call, number)
        try:
            read(methods.atm(vectors, bench=killed, **knobs))
            break  # it has no such call any more
        except Killed:
            pass
        again = Mortal(store)
        found = read(methods.atm(vectors, bench=again, **knobs))["task0"]
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        assert set(killed.reported) | set(again.reported) == set(range(knobs["rounds"] + 1))
        # What was kept is not done again: at most the task that was at work when it was killed.
        both = killed.tuned + again.tuned
        assert set(both) == set(whole.tuned) and len(both) <= len(whole.tuned) + 1
    assert number >= knobs["rounds"]


def test_what_is_finished_is_not_tuned_again():
    vectors, store = random_vectors(2), {}
    first = read(methods.atm(vectors, bench=Mortal(store), rounds=2))
    again = Mortal(store)
    torch.testing.assert_close(read(methods.atm(vectors, bench=again, rounds=2)), first)
    assert again.tuned == [] and again.reported == [2]


def test_with_another_merge_each_change_is_on_disk_and_of_one_round_only(tmp_path):
    bench, unfinished = MadeUpBench([*TASKS, "task2"]), Unfinished(tmp_path, "m")
    knobs = {"merge": "ties", "merge_knobs": {"density": 0.5}, "rounds": 3, "steps_per_round": 1}
    expected = read(methods.atm(random_vectors(3), bench=bench, **knobs))
    bench.keep, bench.kept = unfinished.keep, unfinished.kept
    found = read(methods.atm(random_vectors(3), bench=bench, **knobs))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [*(f"change {n}.safetensors" for n in range(3)), "vector.safetensors"]
