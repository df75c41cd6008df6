"""The search: repeatable, within its range, better than chance, for so many objectives."""

import sys

import pytest
import torch

from tsv_bench.methods.evolved.search import (
    ALGORITHMS,
    Search,
    check_objectives,
    check_pymoo,
    front,
)

every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def objectives_of(genotypes, count):
    """Peaks at 0.3 and, with several objectives, at 0.6."""
    peaks = torch.tensor([0.3, 0.6])[:count].double()
    return -(genotypes[:, None] - peaks[:, None]).square().sum(dim=2)


def search(algorithm, evaluate=None, seed=0, generations=6):
    count = 2 if algorithm == "nsga2" else 1
    asked = []

    def evaluated(number, genotypes):
        asked.append((number, len(genotypes)))
        return (evaluate or objectives_of)(genotypes, count)

    made = Search(
        algorithm=algorithm, population=10, generations=generations, highest=1.5, seed=seed
    )
    return made.run(3, count, evaluated), asked


@every_algorithm
def test_the_same_seed_gives_the_same_search_and_another_one_another(algorithm):
    (one, asked), (same, _), (other, _) = (
        search(algorithm),
        search(algorithm),
        search(algorithm, seed=1),
    )
    wanted = [10] * 6 if algorithm != "cma_es" else [1, *[10] * 6]
    assert asked == list(enumerate(wanted))
    for first, second in zip(one, same, strict=True):
        assert first.genotypes.equal(second.genotypes)
    assert not one[-1].genotypes.equal(other[-1].genotypes)


@every_algorithm
def test_candidates_are_in_the_range_and_become_better(algorithm):
    found, _ = search(algorithm, generations=12)
    genotypes = torch.cat([generation.genotypes for generation in found])
    assert genotypes.dtype == torch.float64
    assert float(genotypes.min()) >= 0 and float(genotypes.max()) <= 1.5
    first, last = (float(found[i].objectives.mean(dim=1).mean()) for i in (0, -1))
    best = max(float(g.objectives.mean(dim=1).max()) for g in found)
    if algorithm == "nsga2":  # between the peaks 0.3 apart the mean is -3 * 0.15^2 at best
        assert best > -3 * 0.15**2 - 0.05
    else:
        assert best > -0.02
    assert last > first or algorithm == "cma_es"  # whose first is one in the middle


def test_equal_objectives_end_nothing():
    found, asked = search(
        "ga", lambda genotypes, count: torch.zeros(len(genotypes), count).double()
    )
    assert len(found) == 6 == len(asked)


def test_the_front_is_what_no_other_dominates():
    objectives = torch.tensor([[1.0, 0], [0, 1], [0.5, 0.5], [0.4, 0.5], [0, 0], [1, 0]])
    by_definition = [
        not any(all(o >= own) and any(o > own) for o in objectives) for own in objectives
    ]
    assert front(objectives).tolist() == by_definition == [True, True, True, False, False, True]


@pytest.mark.parametrize(
    ("algorithm", "count", "message"),
    [
        ("ga", 2, "ga is for 1 objectives, and there are 2.*nsga2 takes 2 or 3"),
        ("cma_es", 3, "cma_es is for 1 objectives, and there are 3"),
        ("nsga2", 1, "nsga2 is for 2 or 3 objectives, and there are 1"),
        ("nsga2", 4, "nsga2 is for 2 or 3 objectives, and there are 4"),
    ],
)
def test_another_number_of_objectives_is_refused(algorithm, count, message):
    with pytest.raises(ValueError, match=message):
        check_objectives(algorithm, count)


def test_without_pymoo_the_extra_is_named(monkeypatch):
    check_pymoo()
    monkeypatch.setitem(sys.modules, "pymoo", None)
    with pytest.raises(ValueError, match=r"pip install 'tsv_bench\[evolve\]'"):
        check_pymoo()
