"""The notebook runs from top to bottom, and is committed without what it showed."""

from pathlib import Path

import nbformat
import pytest
from made_up_runs import make_run
from nbclient import NotebookClient

import tsv_bench
from tsv_bench.runs import save_run

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_outputs_are_committed(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None, cell.id


def test_notebook_of_runs_shows_table_and_plots(tmp_path, monkeypatch):
    for method in ("zero_shot", "task_arithmetic", "tsv_merge", "individual"):
        for seed in (0, 1):
            save_run(*make_run(method, seed, tasks=("digits", "land")), tmp_path / "runs")
    monkeypatch.setenv("TSV_BENCH_RUNS", str(tmp_path / "runs"))
    # The kernel imports the package that is tested here, installed or not.
    monkeypatch.setenv("PYTHONPATH", str(Path(tsv_bench.__file__).parents[1]))
    # Nothing of a user's IPython and Jupyter settings.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))

    notebook = nbformat.read(NOTEBOOKS / "runs.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, resources=resources).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output.data for output in outputs if output.output_type == "display_data"]
    assert ["| TSV-M |" in data["text/markdown"] for data in shown if "text/markdown" in data] == [
        True
    ]
    assert sum("image/png" in data for data in shown) == 3
