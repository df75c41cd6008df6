"""The notebooks run from top to bottom, and are committed without what they showed."""

from pathlib import Path

import nbformat
import pytest
from made_up.runs import make_run
from nbclient import NotebookClient

import tsv_bench
from tsv_bench.benchmark.runs import save_run

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_outputs_are_committed(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None, cell.id


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """A function of a notebook's name that runs it; what it displayed, and what it printed."""
    # The kernel imports the package that is tested here, installed or not.
    monkeypatch.setenv("PYTHONPATH", str(Path(tsv_bench.__file__).parents[1]))
    # Nothing of a user's IPython and Jupyter settings.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))

    def run(name):
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        # Where a reader's would run, so that ../results is what it is for them.
        resources = {"metadata": {"path": str(NOTEBOOKS)}}
        NotebookClient(notebook, timeout=300, resources=resources).execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        errors = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
        assert not errors, "warnings or progress bars among the results"
        printed = "".join(o.text for o in outputs if o.output_type == "stream")
        return [output.data for output in outputs if "data" in output], printed

    return run


def test_quickstart_shows_the_runs_that_are_committed(execute):
    shown, printed = execute("01_quickstart")
    assert "mini on mini8" in shown[0]["text/markdown"] and "| TSV-M |" in shown[0]["text/markdown"]
    assert sum("image/png" in data for data in shown) == 4
    assert printed.startswith("TSV-M - Task Arithmetic: +")


def test_quickstart_shows_ones_own_runs(execute, tmp_path, monkeypatch):
    for method in ("zero_shot", "task_arithmetic", "tsv_merge", "individual"):
        for seed in (0, 1):
            save_run(*make_run(method, seed, tasks=("digits", "land")), tmp_path / "runs")
    monkeypatch.setenv("TSV_BENCH_RUNS", str(tmp_path / "runs"))
    shown, _ = execute("01_quickstart")
    assert "2 tasks" in shown[0]["text/markdown"] and "| TIES |" not in shown[0]["text/markdown"]
    assert sum("image/png" in data for data in shown) == 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the first notebook that needs checkpoints leaves them for the next."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.slow
def test_rank_and_interference_are_measured(execute, folder, monkeypatch):
    monkeypatch.setenv("TSV_BENCH_FOLDER", str(folder))
    shown, printed = execute("02_rank_and_interference")
    assert sum("image/png" in data for data in shown) == 4
    assert "at most 0.0000" in printed


@pytest.mark.slow
def test_a_method_of_ones_own_is_compared_and_merges_files(execute, folder, monkeypatch):
    monkeypatch.setenv("TSV_BENCH_FOLDER", str(folder))
    shown, printed = execute("03_your_own_method")
    lines = [line for line in printed.splitlines() if "normalized" in line]
    labels = ("Zero-shot", "Task Arithmetic", "Agreement", "TSV-M")
    assert [line.startswith(label) for label, line in zip(labels, lines, strict=True)] == 4 * [True]
    assert sum("image/png" in data for data in shown) == 1
    assert "'method': 'agreement'" in shown[-1]["text/plain"]
    assert (folder / "checkpoints" / "agreement.safetensors").exists()
