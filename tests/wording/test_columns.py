"""Columns are aligned, and stand in blocks below each other where they do not fit."""

import pytest

from tsv_bench.wording.columns import align, align_within, widest

ROWS = [["name", "a", "bb", "ccc"], ["x", "1", "22", "333"], ["two\nlines", "", "4", "5"]]


def test_cells_may_have_several_lines():
    assert align(ROWS, gap=1).split("\n") == [
        "name  a bb ccc", "x     1 22 333", "two      4   5", "lines"
    ]  # fmt: skip


@pytest.mark.parametrize("width", range(1, 20))
def test_blocks_fit_repeat_the_labels_and_lose_no_column(width):
    blocks = align_within(ROWS, 1, width)
    assert all(block.startswith("name") for block in blocks)
    heads = [block.split("\n")[0].split()[1:] for block in blocks]
    assert sum(heads, []) == ROWS[0][1:]
    for block, head in zip(blocks, heads, strict=True):
        assert widest(block) <= width or len(head) == 1
    assert len(blocks) == (1 if width >= 14 else 2 if width >= 10 else 3)


def test_labels_alone_are_a_block():
    assert align_within([["only"], ["labels"]], 2, 3) == ["only\nlabels"]
