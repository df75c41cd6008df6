"""The output of an analysis is replaced at once, and nothing of anybody else's is."""

import pytest
import torch
from made_up.merges import TASKS, files, finetuned, write_checkpoints
from made_up.state_dicts import save

from tsv_bench.analysis import analyze, analyze_files, figures
from tsv_bench.analysis.figure_files import FIGURES, figure_names
from tsv_bench.state_dicts.entries.choices import Choices


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_checkpoints(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def analyzed(output="out", **settings):
    return analyze("base.safetensors", files(), output, progress=False, **settings)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_old_figures_stay_until_the_new_ones_are_whole(folder, monkeypatch):
    drawn = analyzed().figures
    assert {path.parent.name for path in drawn} == {"out"} and all(p.exists() for p in drawn)
    (folder / "out" / "notes.txt").write_text("mine")
    before = contents(folder)

    def fail(records, folder):
        (folder / "energy.png").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(analyze_files, "save_analysis", fail)
        analyzed(overwrite=True)
    assert contents(folder) == before
    analyzed(overwrite=True, figures=False)  # the old figures would not fit its numbers
    assert set(contents(folder / "out")) == {"analysis.json", "notes.txt"}


def test_what_all_checkpoints_have_is_measured_by_choice(folder):
    for task in TASKS:
        save(finetuned(3) | {"head.weight": torch.ones(2, 2)}, folder / f"{task}.safetensors")
    with pytest.raises(ValueError, match="a: cannot subtract .* first 'head.weight'") as refusal:
        analyzed()
    assert str(refusal.value).endswith("Then shared_only=true measures what all have.")
    found = analyzed(choices=Choices(shared_only=True), figures=False)
    assert found.records["overall"]["num_matrices"]


def test_every_figure_has_its_name():
    assert tuple(figures.FIGURES) == FIGURES


@pytest.mark.parametrize("name", figure_names())
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_no_analysis_is_not_replaced(folder, name, overwrite):
    (folder / "out").mkdir()
    (folder / "out" / name).write_text("mine")
    with pytest.raises(ValueError, match=f"out/{name} is there, of no analysis, and would be"):
        analyzed(overwrite=overwrite)
    assert contents(folder / "out") == {name: b"mine"}


def test_an_analysis_that_appears_meanwhile_stays_and_nothing_is_lost(folder, monkeypatch):
    def meanwhile(records, new):
        (folder / "out" / "analysis.json").write_text("mine")
        return [], []

    monkeypatch.setattr(analyze_files, "save_analysis", meanwhile)
    with pytest.raises(FileExistsError, match="out has appeared while .* is in .*out-2"):
        analyzed()
    assert contents(folder / "out") == {"analysis.json": b"mine"}
    assert set(contents(folder / "out-2")) == {"analysis.json"}


def test_the_current_folder_may_be_the_output(folder):
    before = set(contents(folder))
    analyzed(".", figures=False)
    assert set(contents(folder)) == before | {"analysis.json"}
