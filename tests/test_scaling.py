"""Choosing alpha."""

import pytest

from tsv_bench.scaling import check_alphas, choose_alpha


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
