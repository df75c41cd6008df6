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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the notebooks that need checkpoints leave them."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="module")
def shown(folder):
    """Name -> (what a notebook displayed, what it printed); one kernel runs them all in turn.

    A kernel of its own imports for five seconds, so names are forgotten in between instead.
    """
    for method in ("zero_shot", "task_arithmetic", "tsv_merge", "individual"):
        for seed in (0, 1):
            save_run(*make_run(method, seed, tasks=("digits", "land")), folder / "runs")
    parts = {
        "01_quickstart": {},
        "01_quickstart of one's own": {"TSV_BENCH_RUNS": str(folder / "runs")},
        "02_rank_and_interference": {"TSV_BENCH_FOLDER": str(folder)},
        "03_your_own_method": {"TSV_BENCH_FOLDER": str(folder)},
    }
    whole = nbformat.v4.new_notebook()
    for name, variables in parts.items():
        variables = {"TSV_BENCH_RUNS": "", "TSV_BENCH_FOLDER": ""} | variables
        forget = f"%reset -f\nimport os\nfor name, value in {variables}.items():\n"
        forget += "    os.environ.update({name: value}) if value else os.environ.pop(name, None)\n"
        forget += "del name, value"
        notebook = nbformat.read(NOTEBOOKS / f"{name.split()[0]}.ipynb", as_version=4)
        whole.cells += [nbformat.v4.new_code_cell(forget, metadata={"part": name})]
        whole.cells += notebook.cells
    with pytest.MonkeyPatch.context() as patch:
        # The kernel imports the package that is tested here, installed or not.
        patch.setenv("PYTHONPATH", str(Path(tsv_bench.__file__).parents[1]))
        # Nothing of a user's IPython and Jupyter settings.
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        # Where a reader's would run, so that ../results is what it is for them.
        resources = {"metadata": {"path": str(NOTEBOOKS)}}
        NotebookClient(whole, timeout=300, resources=resources).execute()
    found = {}
    for cell in whole.cells:
        name = cell.metadata.get("part", name)
        found.setdefault(name, []).extend(cell.get("outputs", []))
    return {name: read(outputs) for name, outputs in found.items()}


def read(outputs):
    errors = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert not errors, "warnings or progress bars among the results"
    printed = "".join(o.text for o in outputs if o.output_type == "stream")
    return [output.data for output in outputs if "data" in output], printed


@pytest.mark.slow
def test_quickstart_shows_the_runs_that_are_committed(shown):
    shown, printed = shown["01_quickstart"]
    assert "mini on mini8" in shown[0]["text/markdown"] and "| TSV-M |" in shown[0]["text/markdown"]
    assert sum("image/png" in data for data in shown) == 4
    assert any("TSV-M" in data["text/plain"] and "std" in data["text/plain"] for data in shown)
    assert printed.startswith("TSV-M - Task Arithmetic: +")


def test_quickstart_shows_ones_own_runs(shown):
    shown, _ = shown["01_quickstart of one's own"]
    assert "2 tasks" in shown[0]["text/markdown"] and "| TIES |" not in shown[0]["text/markdown"]
    assert sum("image/png" in data for data in shown) == 4


def test_rank_and_interference_are_measured(shown):
    shown, printed = shown["02_rank_and_interference"]
    assert sum("image/png" in data for data in shown) == 4
    assert "at most 0.0000" in printed


def test_a_method_of_ones_own_is_compared_and_merges_files(shown, folder):
    shown, printed = shown["03_your_own_method"]
    lines = [line for line in printed.splitlines() if "normalized" in line]
    labels = ("Zero-shot", "Task Arithmetic", "Agreement", "TSV-M")
    assert [line.startswith(label) for label, line in zip(labels, lines, strict=True)] == 4 * [True]
    assert sum("image/png" in data for data in shown) == 1
    assert "'method': 'agreement'" in shown[-1]["text/plain"]
    assert (folder / "checkpoints" / "agreement.safetensors").exists()
