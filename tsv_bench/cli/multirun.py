"""The end of a multirun of tsv-bench: one table of all its Runs, and the plots."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from tsv_bench.cli.launch import with_messages
from tsv_bench.cli.printing import show
from tsv_bench.files import check_room

if TYPE_CHECKING:
    from tsv_bench.report.tables.table import Table


class Comparison(Callback):
    """Hydra's callback of conf/bench.yaml: it collects the Runs' files that the jobs return."""

    def __init__(self) -> None:
        self.finished: list[Path] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if job_return.status == JobStatus.COMPLETED:
            self.finished.append(job_return.return_value)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self.finished.clear()  # Hydra keeps its callbacks for as long as the process lives
        # Checked before Hydra writes its multirun.yaml there, which fails with a traceback.
        with_messages("tsv-bench", lambda: check_room(Path(config.paths.runs), 10_000_000))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        # Hydra turns a callback's exception into a warning and exits with 0: hence with_messages.
        if self.finished:
            with_messages("tsv-bench", lambda: self.show(config))

    def show(self, config: DictConfig) -> None:
        """Write the report of the finished jobs and print their table."""
        from tsv_bench.report.text.render import render_terminal
        from tsv_bench.report.write_report import write_report

        tables = tables_of(self.finished)
        paths = config.paths
        written = write_report(tables, Path(paths.report), config.layout)
        show(render_terminal(tables, layout=config.layout))
        show(f"wrote {', '.join(map(str, written))}")
        show(f"Runs are in {paths.runs}, fine-tuned checkpoints in {paths.checkpoints}.")


def tables_of(paths: Sequence[Path]) -> "list[Table]":
    """Build the tables of these Runs alone; one that is damaged is left out with a warning."""
    from tsv_bench.benchmark.runs import read_runs  # here: Hydra makes a `Comparison` at once
    from tsv_bench.report.tables.table import build_tables, with_correctness

    return build_tables(with_correctness(read_runs(dict.fromkeys(paths))))
