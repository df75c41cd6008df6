"""Theorems of MagMax. It copies entries and computes nothing, so all are exact."""

from itertools import permutations

import torch
from made_up.vectors import randn, random_vectors, read

from tsv_bench import methods
from tsv_bench.methods.entrywise.magmax import largest

exactly = {"rtol": 0, "atol": 0}


def reference(deltas):
    """Entry by entry, in plain Python."""
    columns = zip(*(delta.flatten().tolist() for delta in deltas), strict=True)
    chosen = [max(sorted(column, reverse=True), key=abs) for column in columns]
    return torch.tensor(chosen, dtype=deltas.dtype).reshape(deltas.shape[1:])


def test_entries_are_those_of_largest_magnitude():
    deltas = randn(5, 7, 6)
    torch.testing.assert_close(largest(deltas), reference(deltas), **exactly)
    served = methods.magmax({f"task{t}": {"w": delta} for t, delta in enumerate(deltas)})
    torch.testing.assert_close(served["task3"]["w"], reference(deltas), **exactly)


def test_no_entry_is_anywhere_smaller_than_a_task_s():
    deltas = randn(6, 50)
    merged = largest(deltas)
    assert (merged.abs() >= deltas.abs()).all()
    assert (merged == deltas).any(dim=0).all()


def test_tasks_of_disjoint_support_are_summed():
    deltas = randn(3, 30) * (torch.arange(30) % 3 == torch.arange(3)[:, None])
    torch.testing.assert_close(largest(deltas), deltas.sum(0), **exactly)


def test_the_same_task_twice_is_that_task():
    vector = random_vectors(1)["task0"]
    served = read(methods.magmax({"a": vector, "b": vector}))
    torch.testing.assert_close(served["a"], vector, **exactly)


def test_scaling_and_turning_the_signs_goes_through():
    deltas = randn(4, 9)
    torch.testing.assert_close(largest(-2 * deltas), -2 * largest(deltas), **exactly)


def test_equal_magnitudes_do_not_depend_on_the_order():
    deltas = torch.tensor([[3.0, -3.0, 1.0], [-3.0, 3.0, -1.0], [0.0, 0.0, -2.0]])
    for order in permutations(range(3)):
        assert largest(deltas[list(order)]).tolist() == [3, 3, -2]
