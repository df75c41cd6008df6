"""The notebooks run from top to bottom, and are committed without what they showed.

Here their cells run in this process, one after the other, and fine-tune on few images. `make docs`
runs them as a reader does, each in a kernel of its own, and fails if one fails or warns.
"""

import ast
import contextlib
import io
import json
import logging
import os
import shlex
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import matplotlib.pyplot as plt
import pytest
from made_up.runs import make_run
from matplotlib.figure import Figure
from stand_ins.commands import tsv

from tsv_bench.benchmark.runs import save_run

pytestmark = pytest.mark.usefixtures("few_resamples")
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
FEWER = {
    "{train: 200, val: 50, test: 100}": "{train: 20, val: 10, test: 20}",
    "epochs=4": "epochs=1",
}
MAGIC = ("%matplotlib inline\n", "%%bash\n")  # all that is known of IPython here


def cells(name):
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("name", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_no_outputs_are_committed(name):
    for cell in cells(name):
        assert not cell.get("outputs") and cell.get("execution_count") is None, cell["id"]


@dataclass
class Shown:
    """What a notebook showed: the last values of cells, how many figures, and what it printed."""

    values: list = field(default_factory=list)
    figures: int = 0
    printed: str = ""


def run(name, fewer=False, **variables):
    """Run a notebook where a reader would, so that ../results is what it is for them.

    ``fewer``: with the images and epochs of `FEWER`.
    """
    shown, names = Shown(), {"__name__": "__main__"}
    logger = logging.getLogger("tsv_bench")
    level = logger.level
    try:
        with (
            contextlib.chdir(NOTEBOOKS),
            mock.patch.dict(os.environ, variables),
            warnings.catch_warnings(),
        ):
            sources = ["".join(c["source"]) for c in cells(name) if c["cell_type"] == "code"]
            for found, taken in FEWER.items() if fewer else ():
                assert sum(found in source for source in sources) == 1
                sources = [source.replace(found, taken) for source in sources]
            for source in sources:
                run_cell(source, names, shown)
    finally:
        logger.setLevel(level)
        plt.close("all")
    return shown


def run_cell(source, names, shown):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if source.startswith(MAGIC[1]):
            run_shell(source)
        else:
            value = run_python(source.removeprefix(MAGIC[0]), names)
            if value is not None:
                shown.values.append(value)
                shown.figures += isinstance(value, Figure)
        for number in plt.get_fignums():
            plt.figure(number).draw_without_rendering()
            shown.figures += 1
        plt.close("all")
    assert not err.getvalue(), "warnings or progress bars among the results"
    shown.printed += out.getvalue()


def run_python(source, names):
    """Run a cell; return the value of its last expression, which a notebook shows."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    if last is None:
        return None
    value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    return None if source.rstrip().partition("#")[0].rstrip().endswith(";") else value


def run_shell(source):
    """Call the commands of a cell in this process."""
    _, place, *lines = source.splitlines()
    assert place == 'cd "$MODELS"'
    for line in lines:
        command, *arguments = shlex.split(line.removesuffix(" 2>&1"))
        done = tsv(os.environ["MODELS"], command.removeprefix("tsv-"), *arguments)
        assert done.code == 0, done.err
        print(done.out + done.err)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the notebooks that need checkpoints leave them."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.slow
def test_quickstart_shows_the_runs_that_are_committed():
    shown = run("01_quickstart")
    table, *_, pivot = [value for value in shown.values if not isinstance(value, Figure)]
    assert "mini on mini8" in table.data and "| TSV-M |" in table.data
    assert shown.figures == 4
    assert "TSV-M" in pivot.index and ("std", "digits") in pivot.columns
    assert shown.printed.startswith("TSV-M - Task Arithmetic: +")


def test_quickstart_shows_ones_own_runs(folder):
    for method in ("zero_shot", "task_arithmetic", "tsv_merge", "individual"):
        for seed in (0, 1):
            save_run(*make_run(method, seed, tasks=("digits", "land")), folder / "runs")
    shown = run("01_quickstart", TSV_BENCH_RUNS=str(folder / "runs"))
    assert "2 tasks" in shown.values[0].data and "| TIES |" not in shown.values[0].data
    assert shown.figures == 4


def test_rank_and_interference_are_measured(folder):
    shown = run("02_rank_and_interference", fewer=True, TSV_BENCH_FOLDER=str(folder))
    assert shown.figures == 4
    assert "at most 0.0000" in shown.printed


def test_a_method_of_ones_own_is_compared_and_merges_files(folder):
    shown = run("03_your_own_method", fewer=True, TSV_BENCH_FOLDER=str(folder))
    lines = [line for line in shown.printed.splitlines() if "normalized" in line]
    labels = ("Zero-shot", "Task Arithmetic", "Agreement", "TSV-M")
    assert [line.startswith(label) for label, line in zip(labels, lines, strict=True)] == 4 * [True]
    assert shown.figures == 1
    assert shown.values[-1]["method"] == "agreement"
    assert (folder / "checkpoints" / "agreement.safetensors").exists()


def test_language_models_and_an_adapter_are_merged(folder):
    shown = run("04_language_models", TSV_BENCH_FOLDER=str(folder))
    assert "TSV-M of 3 tasks -> merged" in shown.printed
    *_, difference, loss = shown.values
    assert difference < 1e-5  # float32: the command and tsv_bench.merge are one method
    own = ["digits", "latin", "greek"]
    assert all(loss.loc[name, name] < 0.3 for name in own)
    assert all(0.9 < loss.loc["base", name] < 1.3 for name in own)  # a guess among three: log 3
    assert loss.loc["TSV-M", "mean"] < loss.loc[own, "mean"].min()
    assert shown.figures == 1
