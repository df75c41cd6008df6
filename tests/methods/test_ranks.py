"""How many singular triplets each task keeps."""

import logging

import pytest

from tsv_bench.methods import ranks
from tsv_bench.methods.ranks import kept_rank


@pytest.mark.parametrize(
    ("full_rank", "num_tasks", "rank_fraction", "rank"),
    [
        (24, 5, None, 4),
        (98, 49, None, 2),  # int(98 * (1 / 49)) is 1
        (7, 1, None, 7),
        (24, 3, 2 / 24, 2),
        (100, 3, 0.29, 29),  # 0.29 * 100 is 28.999999999999996
        (100, 3, 0.299, 29),
        (24, 8, 1.0, 24),
        (24, 8, 1, 24),
    ],
)
def test_kept_rank_is_the_floor_of_the_share(full_rank, num_tasks, rank_fraction, rank):
    assert kept_rank(full_rank, num_tasks, rank_fraction) == rank


@pytest.mark.parametrize(("num_tasks", "rank_fraction"), [(9, None), (2, 0.05)])
def test_less_than_one_triplet_is_one_and_said_once(num_tasks, rank_fraction, caplog):
    ranks._warn_that_one_is_kept.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert [kept_rank(8, num_tasks, rank_fraction) for _ in range(3)] == [1, 1, 1]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "each of" in caplog.text and "keeps one" in caplog.text


@pytest.mark.parametrize("rank_fraction", [0, -0.1, 1.01, float("nan"), float("inf")])
def test_rank_fraction_out_of_range(rank_fraction):
    with pytest.raises(ValueError, match="at least one and at most all"):
        kept_rank(24, 2, rank_fraction)
