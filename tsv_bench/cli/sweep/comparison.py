"""The end of a sweep of tsv-bench: one table of all its Runs, and the plots."""

import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from tsv_bench.cli.printing import columns, show

if TYPE_CHECKING:
    from tsv_bench.report.tables.table import Table


def show_comparison(config: DictConfig, runs: Sequence[Path]) -> None:
    """Write the report of these Runs and print their table."""
    from tsv_bench.cli.sweep.earlier import mark, set_aside  # here: only a sweep needs them
    from tsv_bench.report.text.render import render_terminal
    from tsv_bench.report.write_report import write_figures, write_texts, writing

    tables, paths = tables_of(runs), config.paths
    report = Path(paths.report)
    with writing(report):  # two sweeps that end at the same time
        earlier = set_aside(report, runs)
        written = write_texts(tables, report, config.layout)
        mark(report, runs)  # before figures are drawn for seconds, in which a kill may come
        written += write_figures(tables, report)
    show(render_terminal(tables, columns(), layout=config.layout))
    show(listed(written, report, columns()))
    if earlier:
        show(f"The report of other Runs that was in {report} is now in {earlier}.")
    show(f"Runs are in {paths.runs}, fine-tuned checkpoints in {paths.checkpoints}.")
    show(f"All Runs as a page for the browser: {page_command(paths.runs)}")


def listed(written: Sequence[Path], folder: Path, width: int) -> str:
    """Return what was written into a folder; figures, which are there as svg and png, once."""
    figures = [path.stem for path in written if path.suffix == ".svg"]
    others = [path.name for path in written if path.stem not in figures]
    text = f"wrote into {folder}: {', '.join(others)}"
    if figures:
        text += f", and as svg and png: {', '.join(figures)}"
    whole = {"break_on_hyphens": False, "break_long_words": False}  # names, to be copied
    return textwrap.fill(text, width, subsequent_indent="  ", **whole)


def page_command(runs: str) -> str:
    """Return the command that makes a page of these Runs, by its path if no shell would find it."""
    program = "tsv-report"
    beside = Path(sys.argv[0]).with_name(program)
    if shutil.which(program) is None and beside.exists():
        program = str(beside)
    return shlex.join([program, "html=true", *([] if runs == "runs" else [f"paths.runs={runs}"])])


def tables_of(paths: Sequence[Path]) -> "list[Table]":
    """Build the tables of these Runs alone; one that is damaged is left out with a warning."""
    from tsv_bench.benchmark.runs import read_runs
    from tsv_bench.report.tables.table import build_tables, with_correctness

    return build_tables(with_correctness(read_runs(dict.fromkeys(paths))))
