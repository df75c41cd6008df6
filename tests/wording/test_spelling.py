"""The nearest right name for a wrong one."""

from tsv_bench.wording.spelling import nearest


def test_a_name_is_suggested_only_when_it_is_near():
    assert nearest("tie", ["ties", "tsv_merge"]) == "; did you mean 'ties'?"
    assert nearest("xyz", ["ties", "tsv_merge"]) == "."
    assert nearest("xyz", []) == "."
