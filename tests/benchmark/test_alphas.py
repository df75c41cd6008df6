"""Choice of alpha on validation, with and without patience."""

from itertools import product

import numpy as np
import pytest
from omegaconf import OmegaConf

from tsv_bench.benchmark.alphas import check_patience, choose_alpha, choose_by_task
from tsv_bench.cli.config.overrides import CONF
from tsv_bench.methods.knobs import check_alphas


def test_fixed_alpha_is_free():
    never = lambda alpha: pytest.fail("should not evaluate")  # noqa: E731
    assert choose_alpha([0.7], never) == (0.7, {})


@pytest.mark.parametrize("alphas", [[0.1, 0.2, 0.3, 0.4], [0.4, 0.2, 0.3, 0.1]])
def test_first_maximum_wins_in_any_order(alphas):
    asked = []

    def score(alpha):
        asked.append(alpha)
        return {0.1: 0.5, 0.2: 0.9, 0.3: 0.9, 0.4: 0.2}[alpha]

    best, scores = choose_alpha(alphas, score)
    assert best == 0.2
    assert scores == {0.1: 0.5, 0.2: 0.9, 0.3: 0.9, 0.4: 0.2}
    assert sorted(asked) == [0.1, 0.2, 0.3, 0.4]


def test_best_may_lie_on_either_edge():
    assert choose_alpha([0.1, 0.2, 0.3], lambda alpha: alpha)[0] == 0.3
    assert choose_alpha([0.1, 0.2, 0.3], lambda alpha: -alpha)[0] == 0.1


def search(curve, patience=None):
    """Return the chosen index of a curve and the number of values that were evaluated."""
    best, scores = choose_alpha(range(1, len(curve) + 1), lambda a: curve[a - 1], patience)
    assert list(scores.values()) == list(curve[: len(scores)])
    return best, len(scores)


def is_unimodal(curve):
    steps = np.sign(np.diff(curve))
    return not any((steps[:k] < 0).any() and steps[k] > 0 for k in range(len(steps)))


UNIMODAL = [curve for curve in product(range(4), repeat=6) if is_unimodal(curve)]


@pytest.mark.parametrize("patience", [1, 2, 3, 10])
def test_patience_gives_the_same_choice_on_every_unimodal_curve(patience):
    """All curves of six values on four levels: every pattern of rises, falls and plateaus."""
    assert (0, 1, 1, 3, 3, 2) in UNIMODAL and (3, 3, 3, 2, 2, 2) in UNIMODAL
    assert (0, 2, 1, 2, 0, 0) not in UNIMODAL and len(UNIMODAL) > 200
    for curve in UNIMODAL:
        assert search(curve, patience)[0] == search(curve)[0], curve


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_gives_the_same_choice_on_the_papers_grid(patience):
    """Thirty alphas and accuracies of few images, so that many are equal."""
    rng, saved = np.random.default_rng(0), 0
    for _ in range(2000):
        values, top = rng.integers(0, rng.integers(2, 100), 30), rng.integers(0, 31)
        curve = [*np.sort(values[:top]), *np.sort(values[top:])[::-1]]
        (whole, all_30), (stopped, num_evaluated) = search(curve), search(curve, patience)
        assert all_30 == 30 and stopped == whole, curve
        saved += 30 - num_evaluated
    assert saved > 2000  # it does stop


def test_patience_stops_after_so_many_values_in_a_row_below_the_best():
    curve = [5, 7, 6, 7, 6, 6, 1, 1, 1]
    assert [search(curve, patience)[1] for patience in (1, 2, 3, 4, None)] == [3, 6, 7, 8, 9]


def test_patience_may_miss_a_second_top_and_is_off_by_default():
    """This is why it is no default: a maximum beyond a valley as long as the patience is missed."""
    curve = [0.5, 0.8, 0.6, 0.7, 0.9]
    assert search(curve, patience=2) == (2, 4)
    assert search(curve, patience=3) == search(curve) == (5, 5)
    assert OmegaConf.load(CONF / "bench.yaml").evaluation.patience is None


@pytest.mark.parametrize("patience", [0, -1, True, 1.5, "2"])
def test_patience_is_a_whole_number(patience):
    with pytest.raises(ValueError, match="evaluation.patience=.* whole number of at least 1"):
        check_patience(patience)
    check_patience(1), check_patience(None)


@pytest.mark.parametrize(
    ("alphas", "message"),
    [
        ([], "alphas is empty"),
        ([0.5, 0], "alphas has 0; every alpha is a number above zero"),
        ([-0.1], "has -0.1"),
        ([0.1, float("nan")], "has nan"),
        ([float("inf")], "has inf"),
        (["0.3"], "has '0.3'"),
        ([True], "has True"),
        ([None], "has None"),
        ([0.1, 0.2, 0.1], "the same alpha twice"),
    ],
)
def test_bad_alphas_are_refused(alphas, message):
    with pytest.raises(ValueError, match=message):
        check_alphas(alphas)


def test_good_alphas_pass():
    check_alphas([1])
    check_alphas([0.1, 2.0, 30])


@pytest.mark.parametrize("candidates", [[0.2, 0.3, 0.4], [0.4, 0.2, 0.3]])
def test_every_task_has_its_own_first_maximum(candidates):
    scores = {0.2: {"a": 0.5, "b": 0.9}, 0.3: {"a": 0.7, "b": 0.9}, 0.4: {"a": 0.7, "b": 0.1}}
    assert choose_by_task(candidates, scores.__getitem__) == {"a": 0.3, "b": 0.2}
