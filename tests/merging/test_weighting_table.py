"""The table of how blocks were weighted."""

from tsv_bench.merging.weighting_table import render_weighting
from tsv_bench.methods.entrywise.lata_published import Weighting

WEIGHTING = Weighting(
    {"math": {"h.0": 0.25, "h.1": -1.0}, "translation": {"h.0": 0.9999994, "h.2": 0.0}},
    {"math": {"h.0": 0.0, "h.1": 1.0}, "translation": {"h.0": 0.0, "h.2": 2 / 3}},
)
TABLE = """\
             math          translation
block  similarity  weight   similarity  weight
h.0      0.250000   0.000     0.999999   0.000
h.1     -1.000000   1.000            -       -
h.2             -       -     0.000000   0.667"""


def test_a_row_is_a_block_and_two_columns_are_a_task():
    assert render_weighting(WEIGHTING) == TABLE
