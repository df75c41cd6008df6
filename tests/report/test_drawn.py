"""Figures that are as they would be drawn stay; those that may not be are drawn again."""

import pytest
from made_up.runs import make_run

from tsv_bench.report import drawn, plots
from tsv_bench.report.tables.table import build_tables
from tsv_bench.report.write_report import write_report

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture
def drawings(monkeypatch):
    """The folders in which figures were drawn: two files, and captions as of a real one."""
    folders = []

    def draw(tables, folder):
        folders.append(folder)
        paths = [folder / f"a+b (c)-tasks.{end}" for end in drawn.ENDS]
        for path in paths:
            path.write_bytes(path.suffix.encode())
        captions = folder / drawn.CAPTIONS
        captions.write_text("## mini\n\n![tasks](a+b%20%28c%29-tasks.png)\n\nTasks.\n")
        return [*paths, captions]

    monkeypatch.setattr(plots, "save_figures", draw)
    return folders


def tables(seed=0):
    return build_tables([make_run("individual", seed, num_images=20)])


def test_real_figures_are_drawn_once(tmp_path, monkeypatch):
    paths = write_report(tables(), tmp_path)
    monkeypatch.setattr(plots, "save_figures", lambda *args: pytest.fail("drawn again"))
    assert write_report(tables(), tmp_path) == paths and all(path.exists() for path in paths)


def test_what_was_changed_is_drawn_again(drawings, tmp_path, monkeypatch):
    paths = write_report(tables(), tmp_path)
    *_, figure, captions = paths
    text = captions.read_text()
    for change in (
        figure.unlink,
        lambda: figure.write_bytes(b"another's"),
        captions.unlink,
        lambda: captions.write_text(text[:-8]),
        lambda: captions.write_bytes(b"\xff"),
        lambda: monkeypatch.setattr(drawn, "version", lambda package: "another"),
    ):
        change()
        before = len(drawings)
        assert write_report(tables(), tmp_path) == paths and len(drawings) == before + 1
        assert write_report(tables(), tmp_path) == paths and len(drawings) == before + 1


def test_figures_of_other_runs_are_drawn(drawings, tmp_path):
    for count, seed in enumerate((0, 1, 0), start=1):
        write_report(tables(seed), tmp_path)
        assert len(drawings) == count
