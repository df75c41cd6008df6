"""One job of a sweep: it leaves a record, and its failure does not end the others."""

import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from tsv_bench.cli.sweep.asked import goes_by_results
from tsv_bench.cli.sweep.command import Made
from tsv_bench.cli.sweep.elsewhere import is_queued_again
from tsv_bench.cli.sweep.jobs import task_overrides
from tsv_bench.cli.sweep.log_file import logged_to
from tsv_bench.cli.sweep.records import Record, read_jobs, varying, write_record
from tsv_bench.cli.typed.mistakes import full_errors, message_of
from tsv_bench.process.signals import said_of

NO_METRIC = (
    "it has no accuracy on validation, which the sweeper goes by. Leave evaluation.validate null."
)


class JobFailed(Exception):
    """A job has failed; the argument is why. A process can send it to another."""


def recorded(program: str, work: Callable[[], Any]) -> float | None:
    """Do the work of one job of a sweep and record how it ended; return its metric.

    A failure is shown and recorded. Hydra's own sweeper gets NaN then, and goes on. Raises
    JobFailed for a sweeper that goes by results. That a signal has ended the job is recorded, too.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    overrides, started = task_overrides(hydra), time.monotonic()
    made, error, stop = Made(), None, None
    try:
        with logged_to(folder / f"{hydra.job.num}.log", " ".join([program, *overrides])):
            made = work() or made
            if made.metric is None and goes_by_results(hydra):
                raise ValueError(NO_METRIC)
    except KeyboardInterrupt as raised:
        stop, error = raised, f"{said_of(raised)}. What was finished is kept"
    except (Exception, SystemExit) as raised:
        if is_queued_again(raised):
            raise
        error = message_of(raised)
        if error is None or full_errors():
            traceback.print_exc()
        if error is None:
            error = f"{type(raised).__name__}: {raised}"
        name = varying(overrides, read_jobs(folder) or [overrides])
        print(f"{program}: error in {name}: {error}", file=sys.stderr, flush=True)
    record = Record(
        number=hydra.job.num,
        overrides=overrides,
        files=[str(path) for path in made.files],
        error=error,
        metric=made.metric,
        host=socket.gethostname(),
        seconds=round(time.monotonic() - started, 3),
    )
    write_record(folder, record)
    if stop:
        raise stop
    if error is None:
        return made.metric
    if goes_by_results(hydra):
        raise JobFailed(error)
    return float("nan")
