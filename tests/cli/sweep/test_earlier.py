"""The report that lies where a sweep writes its own."""

from pathlib import Path

import pytest

from tsv_bench.cli.sweep.earlier import mark, set_aside

RUNS = [Path(f"runs/mini/mini2/ties-{n}.json") for n in range(3)]
FIGURES = ["mini-methods.svg", "mini-methods.png"]


@pytest.fixture
def report(tmp_path):
    """A function that writes a report as a sweep does; other files are beside."""

    def write(runs, text="a table", marked=True):
        (tmp_path / "table.csv").write_text(text)
        (tmp_path / "figures.md").write_text("![Accuracy](mini-methods.png)\n")
        for name in (*FIGURES, "runs.csv", "alphas.csv", "README.md"):
            (tmp_path / name).write_text(text)
        if marked:
            mark(tmp_path, runs)
        return tmp_path

    return write


def test_a_report_of_the_same_runs_or_fewer_is_replaced(report):
    folder = report(RUNS[:2])
    assert set_aside(folder, RUNS[:2]) is None and set_aside(folder, RUNS) is None
    moved = [Path("elsewhere") / run.relative_to("runs") for run in RUNS]
    assert set_aside(folder, moved) is None


@pytest.mark.parametrize("case", ["other Runs", "written since", "by tsv-report", "damaged mark"])
def test_any_other_report_goes_into_a_folder_beside(case, report):
    folder = report(RUNS[:2], marked=case != "by tsv-report")
    if case == "written since":
        (folder / "table.csv").write_text("another table")
    if case == "damaged mark":
        (folder / "sweep.yaml").write_text("[")
    before = {path.name: path.read_text() for path in folder.iterdir()}
    place = set_aside(folder, RUNS[1:] if case == "other Runs" else RUNS)
    assert place.parent == folder
    assert {path.name: path.read_text() for path in place.iterdir()} == {
        name: text for name, text in before.items() if name != "README.md"
    }
    assert {path.name for path in folder.iterdir()} == {"README.md", place.name}
    assert set_aside(folder, RUNS) is None


def test_where_there_is_none_nothing_is_moved(tmp_path):
    assert set_aside(tmp_path, RUNS) is None and set_aside(tmp_path / "nowhere", RUNS) is None


def test_a_figure_that_is_gone_is_no_failure(report):
    folder = report(RUNS)
    (folder / FIGURES[0]).unlink()
    assert FIGURES[1] in {path.name for path in set_aside(folder, RUNS[:1]).iterdir()}
