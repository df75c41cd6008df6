"""Theorems of DARE.

What is counted or averaged over draws may be off by six standard errors: once in 5e8, and the seeds
are fixed. All else is exact: the same entries, divided once.
"""

import logging
import math

import pytest
import torch
from made_up.vectors import close, randn, random_vectors, read

from tsv_bench import methods
from tsv_bench.methods.entrywise.dare import DRAW, dropped
from tsv_bench.task_vectors import lazy, streaming
from tsv_bench.task_vectors.task_vector import TaskVector

exactly = {"rtol": 0, "atol": 0}
DENSITIES = [0.1, 0.5, 0.9]
DARE = [
    methods.dare_ta,
    lambda vectors, **knobs: methods.dare_ties(vectors, trim_density=0.2, **knobs),
]
both = pytest.mark.parametrize("dare", DARE, ids=["ta", "ties"])


def drop(vector, density, seed=0, task="a"):
    return dropped({task: vector}, density, seed)[task]


@pytest.mark.parametrize("density", DENSITIES)
def test_an_entry_is_dropped_or_rescaled(density):
    delta = randn(40, 25)
    found = drop({"w": delta}, density)["w"]
    assert torch.equal(found[found != 0], (delta / density)[found != 0])


@pytest.mark.parametrize("density", DENSITIES)
def test_the_share_that_survives_is_the_density(density):
    n = 300 * 1000
    survivors = int(drop({"w": torch.ones(300, 1000)}, density)["w"].count_nonzero())
    assert abs(survivors - n * density) < 6 * math.sqrt(n * density * (1 - density))


@pytest.mark.parametrize("density", DENSITIES)
def test_the_expected_value_is_task_arithmetic(density):
    vectors = {task: {"w": randn(60, 30)} for task in "ab"}
    num_draws = 300
    mean = sum(
        methods.dare_ta(vectors, density=density, seed=seed)["a"]["w"] for seed in range(num_draws)
    ).div(num_draws)
    squares = sum(vector["w"] ** 2 for vector in vectors.values())
    error = (squares * (1 - density) / density / num_draws).sqrt()
    assert ((mean - methods.task_arithmetic(vectors)["a"]["w"]).abs() < 6 * error).all()


def test_draws_of_tasks_layers_seeds_and_pieces_are_independent():
    """Two that share nothing agree in half of the entries."""
    ones = torch.ones(DRAW // 64, 64)
    vector = {"v": ones, "w": torch.cat([ones, ones])}
    first, second = drop(vector, 0.5)["w"].bool().split(len(ones))
    others = [
        second,
        drop(vector, 0.5)["v"].bool(),
        drop(vector, 0.5, seed=1)["w"].bool()[: len(ones)],
        drop(vector, 0.5, task="b")["w"].bool()[: len(ones)],
    ]
    for other in others:
        agree = int((first == other).sum())
        assert abs(agree - DRAW / 2) < 6 * math.sqrt(DRAW) / 2


@both
def test_a_draw_does_not_depend_on_what_is_read_when_or_beside_what(dare, monkeypatch):
    vectors = random_vectors(3)
    zeros = {name: torch.zeros_like(delta) for name, delta in vectors["task0"].items()}
    in_rows = {task: TaskVector(zeros, vector) for task, vector in vectors.items()}
    expected = read(dare(vectors, density=0.5, seed=3))["task0"]
    backwards = dict(reversed([(n, dare(vectors, density=0.5, seed=3)["task0"][n]) for n in zeros]))
    torch.testing.assert_close(dict(reversed(backwards.items())), expected, **exactly)
    for block in (7, 50, lazy.BLOCK):
        monkeypatch.setattr(lazy, "BLOCK", block)
        served = dare(in_rows, density=0.5, seed=3)["task0"]
        torch.testing.assert_close(streaming.gather(streaming.stream(served)), expected, **exactly)


@pytest.mark.parametrize("draw", [1, 6, 100])
def test_rows_are_dropped_as_in_the_whole_layer(draw, monkeypatch):
    monkeypatch.setattr("tsv_bench.methods.entrywise.dare.DRAW", draw)
    delta = randn(13, 5)
    vector = drop(TaskVector({"w": torch.zeros_like(delta)}, {"w": delta}), 0.5)
    for start in range(13):
        for stop in range(start, 14):
            assert torch.equal(vector.rows("w", start, stop), vector["w"][start:stop])


@both
def test_other_seeds_give_other_vectors(dare):
    vectors = random_vectors(2)
    served = [dare(vectors, density=0.5, seed=seed)["task0"]["proj"] for seed in (0, 1)]
    assert not torch.equal(*served)


@pytest.mark.parametrize("seed", [0, 5])
def test_nothing_dropped_is_the_method_without_a_drop(seed):
    vectors = random_vectors(3)
    ta = methods.dare_ta(vectors, density=1.0, seed=seed)
    torch.testing.assert_close(read(ta), read(methods.task_arithmetic(vectors)), **exactly)
    both = methods.dare_ties(vectors, density=1.0, trim_density=0.3, seed=seed)
    torch.testing.assert_close(read(both), read(methods.ties(vectors, density=0.3)), **exactly)


def reference_ties(deltas, trim_density):
    """Of tasks x entries, entry by entry: largest, elected, averaged."""
    stay = math.ceil(deltas.shape[1] * trim_density - 1e-7)
    trimmed = []
    for row in deltas.tolist():
        threshold = sorted(map(abs, row), reverse=True)[stay - 1]
        trimmed.append([x if abs(x) >= threshold else 0.0 for x in row])
    merged = []
    for column in zip(*trimmed, strict=True):
        agreeing = [x for x in column if x * sum(column) > 0]
        merged.append(sum(agreeing) / max(1, len(agreeing)))
    return torch.tensor(merged, dtype=deltas.dtype)


@pytest.mark.parametrize("trim_density", [0.1, 0.2, 1.0])
def test_trimming_and_election_follow_the_drop(trim_density):
    vectors = {f"task{t}": {"v": randn(6, 5), "w": randn(20)} for t in range(4)}
    after = dropped(vectors, 0.5, 7)
    flat = torch.stack([torch.cat([d.flatten() for d in v.values()]) for v in after.values()])
    assert 0.3 < (flat == 0).double().mean() < 0.7
    served = methods.dare_ties(vectors, density=0.5, trim_density=trim_density, seed=7)["task1"]
    found = torch.cat([delta.flatten() for delta in served.values()])
    torch.testing.assert_close(found, reference_ties(flat, trim_density), **close)


def test_trimming_that_trims_nothing_is_told_once(caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            methods.dare_ties({}, density=0.15, trim_density=0.2, seed=0)
        methods.dare_ties({}, density=0.15, trim_density=1.0, seed=0)
    assert len(caplog.records) == 1
    assert "trim_density=0.2 trims next to nothing" in caplog.text
