"""Twin-Merging's experts: what a task's model differs from the merged one, at low rank."""

import pytest
import torch
from made_up.vectors import close, random_vectors, read

from tsv_bench import methods

EXPERTS = ["in_proj_weight", "c_proj.weight"]  # by name: linear layers of blocks


def test_at_full_rank_an_expert_is_the_tasks_own_model_in_these_layers():
    vectors = random_vectors(3)
    served = read(methods.twin_merging(vectors, bench=None, rank_fraction=1))
    for task, vector in vectors.items():
        for name, delta in vector.items():
            summed = 0.3 * sum(of_task[name] for of_task in vectors.values())
            expected = delta if name in EXPERTS else summed
            torch.testing.assert_close(served[task][name], expected, **close)


def test_at_low_rank_it_is_the_nearest_one():
    """The rest is what the singular values left out weigh (Eckart and Young)."""
    vectors = random_vectors(2)
    served = read(methods.twin_merging(vectors, bench=None, rank_fraction=0.2, base="ties",
                                       base_knobs={"density": 0.5}, base_alpha=0.8))  # fmt: skip
    shared = methods.ties(vectors, density=0.5)
    for task, vector in vectors.items():
        for name in EXPERTS:
            values = torch.linalg.svdvals(vector[name] - 0.8 * shared[task][name])
            rest = torch.linalg.matrix_norm(vector[name] - served[task][name])
            rank = int(0.2 * len(values))
            torch.testing.assert_close(rest, values[rank:].square().sum().sqrt(), **close)


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ({"base": "unknown"}, "base='unknown' is not a method"),
        ({"base_alpha": -1}, "base_alpha=-1"),
        ({"rank_fraction": 0}, "rank_fraction=0"),
        ({"mixture": 1}, "mixture=1"),
        ({"router_reads": "experts"}, "router_reads='experts'"),
    ],
)
def test_knobs_out_of_range(knob, message):
    with pytest.raises(ValueError, match=message):
        methods.twin_merging({}, bench=None, **knob)


def test_a_base_that_serves_each_task_its_own_is_refused():
    with pytest.raises(ValueError, match="base=individual serves each task its own"):
        methods.twin_merging(random_vectors(2), bench=None, base="individual")
