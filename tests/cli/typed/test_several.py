"""tsv-fetch for several runs: the cells of an experiment or a sweep, in Hydra's order."""

import pytest

from tsv_bench.cli.typed.several import SINGLE, asked, cells, first_of_several


def test_cells_are_those_that_hydra_would_run_without_what_the_command_lacks():
    found = cells("bench", ["experiment=embedded", "seed=0,1", "suite=mini2"])
    assert len(found) == 14 and found[0][0] == "method=zero_shot"
    assert found[1] == ["method=zero_shot", "experiment=embedded", "seed=1", "suite=mini2"]
    found = cells("fetch", ["experiment=table_2", "suite=vision8"])
    assert [cell[0] for cell in found] == [
        "backbone=vit_b32",
        "backbone=vit_b16",
        "backbone=vit_l14",
    ]
    assert all(cell[1:] == ["suite=vision8", "experiment=table_2"] for cell in found)
    assert cells("fetch", []) == [[]]


def test_an_own_experiment_counts(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nhydra: {sweeper: {params: {suite: 'mini2,mini4'}}}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    line = ["--config-dir", str(tmp_path), "--multirun", "experiment=mine", "~suite.tasks.digits"]
    first = first_of_several("fetch", line)
    assert first == [*line[:2], "suite=mini2", "experiment=mine", "~suite.tasks.digits", SINGLE]
    assert [cell[0] for cell in asked.get().cells] == ["suite=mini2", "suite=mini4"]
    assert asked.get().arguments == line


def test_cells_are_found_by_patterns_and_not_in_intervals():
    found = cells("fetch", ["suite=glob(vision*)", "experiment=search_rank"])
    assert [cell[0] for cell in found] == ["suite=vision14", "suite=vision20", "suite=vision8"]
    with pytest.raises(ValueError, match="takes an interval only where Optuna searches it"):
        cells("fetch", ["seed=interval(0,3)"])
