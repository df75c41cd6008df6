"""Trackers, which show finished Runs outside the results folder: none, or Weights & Biases."""

import logging
import os
import shlex
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tsv_bench.benchmark.runs import Run
from tsv_bench.benchmark.weights import how_made
from tsv_bench.process.extras import check_installed

logger = logging.getLogger(__name__)

MODES = (None, "online", "offline", "disabled")
PROMPT_SECONDS = 60  # how long a missing login may ask before it counts as a failure
START_SECONDS = 30  # how long W&B may take to answer; every Run waits at most so long
UPLOAD_SECONDS = 300  # how long the last upload may take; the files are small
WEIGHTS_SECONDS = 3600  # the same with weights, which may be gigabytes

# What the summary has of test images. A sweep that goes by it would choose on test.
TEST_METRICS = ("absolute", "normalized")

# Writes the weights that the Run evaluated into a folder and returns their files.
Weights = Callable[[Path], Sequence[Path]]


class Tracker(Protocol):
    """Something that shows Runs."""

    def check(self) -> None:
        """Check what can be before a Run is made. Raises ValueError if it cannot be shown."""

    def log_run(self, run: Run, plots: Sequence[Path], weights: Weights | None = None) -> None:
        """Show a Run that is already saved, its plots (PNG) and its weights. Never raises."""


class NoTracker:
    """The tracker that does nothing."""

    def check(self) -> None:
        """Do nothing."""

    def log_run(self, run: Run, plots: Sequence[Path], weights: Weights | None = None) -> None:
        """Do nothing: the results folder has it all."""


@dataclass(frozen=True, kw_only=True)
class WandbTracker:
    """The tracker that makes a W&B run of each Run.

    ``mode`` and ``dir`` may be None: then the environment decides (WANDB_MODE, WANDB_DIR). Raises
    ValueError for an unknown mode or an ``artifact`` that is not a bool.
    """

    project: str
    entity: str | None
    experiment: str | None
    group: str | None
    tags: Sequence[str]
    artifact: bool
    mode: str | None
    dir: str | None

    def __post_init__(self) -> None:
        check_installed("wandb", "tracker=wandb")
        if self.mode not in MODES:
            raise ValueError(
                f"tracker.mode={self.mode!r} is unknown; it must be online, offline or disabled, "
                "or null to let WANDB_MODE decide."
            )
        if not isinstance(self.artifact, bool):
            raise ValueError(f"tracker.artifact={self.artifact!r} is neither true nor false.")

    def check(self) -> None:
        """Ask W&B what the sweep that this process is in goes by; a failure is a warning.

        Raises ValueError if that is measured on test images.
        """
        sweep = os.environ.get("WANDB_SWEEP_ID")
        if not sweep or (self.mode or os.environ.get("WANDB_MODE", "online")) != "online":
            return
        try:
            import wandb

            named = [self.entity or os.environ.get("WANDB_ENTITY"), self.project, sweep]
            api = wandb.Api(timeout=START_SECONDS)
            metric = api.sweep("/".join(filter(None, named))).config.get("metric") or {}
        except Exception as error:
            logger.warning("cannot ask W&B what the sweep goes by: %s", error)
            return
        if metric.get("name") in TEST_METRICS:
            raise ValueError(
                f"the sweep {sweep} goes by {metric['name']}, which is measured on test images: "
                f"its best would be chosen on test. Let it go by validation, as in "
                f"metric: {{name: validation, goal: maximize}}."
            )

    def log_run(self, run: Run, plots: Sequence[Path], weights: Weights | None = None) -> None:
        """Log a Run to W&B and say where it is; a failure is a warning."""
        try:
            self._log_run(run, plots, weights)
        # Anything may fail here (login, network, disk, wandb itself), but the Run is saved and
        # other methods are still to be run: warn and go on.
        except Exception as error:
            logger.warning(
                "W&B did not take the run of %s on %s: %s: %s. Its results are saved all the same; "
                "WANDB_MODE=offline tracker=wandb works without login and network.",
                run.method,
                run.suite,
                type(error).__name__,
                error,
            )
            # If wandb's own process died, this raises too, SystemExit among others. The next Run
            # starts a new process.
            with suppress(Exception, SystemExit):
                import wandb

                wandb.teardown(exit_code=1)

    def _log_run(self, run: Run, plots: Sequence[Path], weights: Weights | None) -> None:
        import wandb  # here: it takes a second, which tracker=none need not spend

        settings = wandb.Settings(
            console="off",
            silent=True,
            init_timeout=START_SECONDS,
            login_timeout=PROMPT_SECONDS,
            finish_timeout=WEIGHTS_SECONDS if self.artifact else UPLOAD_SECONDS,
            finish_timeout_raises=True,
        )
        if self.dir is not None:
            Path(self.dir).mkdir(parents=True, exist_ok=True)  # without it, wandb writes elsewhere
        wandb_run = wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group or "-".join(filter(None, (self.experiment, run.backbone, run.suite))),
            job_type=run.method,
            name=f"{run.method}-{run.fingerprint}",
            tags=self._tags(run),
            mode=self.mode,
            dir=self.dir,
            config=configuration(run),
            settings=settings,
        )
        # Not `with wandb_run`: that prints the traceback of an error that log_run reports.
        log_results(wandb_run, run, plots)
        if self.artifact and not wandb_run.disabled:
            log_weights(wandb_run, run, weights)
        place = where(wandb_run)
        wandb_run.finish()
        if place:
            logger.info(place)

    def _tags(self, run: Run) -> list[str]:
        """Return the names of what was run, the generations of checkpoints, and the user's tags."""
        finetuned = (c for name, c in run.checkpoints.items() if name != "pretrained")
        generations = sorted({c.get("generation", "unknown") for c in finetuned})
        chosen = (run.backbone, run.suite, run.method, *generations, self.experiment, *self.tags)
        return list(dict.fromkeys(filter(None, chosen)))


def where(wandb_run: Any) -> str:
    """Return where a W&B run is, or how to bring it there; "" if it is nowhere."""
    if wandb_run.disabled:
        return ""
    if wandb_run.offline:
        folder = wandb_run.sync_dir
        return f"W&B, offline: {folder}. Upload it with: wandb sync {shlex.quote(folder)}"
    return f"W&B: {wandb_run.url}"


def log_results(wandb_run: Any, run: Run, plots: Sequence[Path]) -> None:
    """Log the alpha curve, a table of the tasks, the summary and the plots."""
    import wandb

    wandb_run.define_metric("alpha_curve/alpha", summary="none")
    wandb_run.define_metric(
        "alpha_curve/normalized", step_metric="alpha_curve/alpha", summary="max"
    )
    for point in run.alpha_curve:
        wandb_run.log({f"alpha_curve/{name}": value for name, value in point.items()})
    shown = {"tasks": wandb_table(task_rows(run))}
    if run.alpha_curve:
        shown["alpha_curve/line"] = wandb.plot.line(
            wandb_table(run.alpha_curve),
            x="alpha",
            y="normalized",
            title=f"{run.label}: normalized accuracy on validation",
        )
    images = {f"plots/{plot.stem}": wandb.Image(str(plot)) for plot in plots}
    wandb_run.log(shown | images)
    wandb_run.summary.update(run_summary(run))


def log_weights(wandb_run: Any, run: Run, weights: Weights | None) -> None:
    """Log the evaluated weights as an artifact that says how they were made."""
    import wandb

    if weights is None:
        logger.warning(
            "no artifact of %s on %s: its Run was there already, which keeps no weights. "
            "overwrite=true evaluates it again.",
            run.method,
            run.suite,
        )
        return
    name = f"{run.backbone}-{run.suite}-{run.method}-{run.fingerprint}".replace("+", "-")
    artifact = wandb.Artifact(name, type="model", metadata=how_made(run))
    # Beside wandb's own files: the system's temporary folder may be in memory.
    with tempfile.TemporaryDirectory(dir=Path(wandb_run.dir).parent) as folder:
        for path in weights(Path(folder)):
            artifact.add_file(str(path), name=path.name, skip_cache=True)  # copied until uploaded
        wandb_run.log_artifact(artifact)


def configuration(run: Run) -> dict[str, Any]:
    """Return what identifies the Run and what is needed to repeat it."""
    names = ("backbone", "suite", "method", "label", "seed", "knobs", "settings", "fingerprint")
    found = {name: getattr(run, name) for name in (*names, "versions", "commit", "machine")}
    return found | {"data": run.seen.text if run.seen else "none"}


def task_rows(run: Run) -> list[dict[str, Any]]:
    """Return a row for each task: test accuracies in [0, 1] and counts of images."""
    return [
        {
            "task": task,
            "accuracy": score.accuracy,
            "correct": score.correct,
            "total": score.total,
            "normalized": score.accuracy / run.normalizer[task],
        }
        for task, score in run.test.items()
    ]


def run_summary(run: Run) -> dict[str, float]:
    """Return accuracies in [0, 1], alpha, seconds of each stage, memory and storage in bytes.

    `TEST_METRICS` are of test images; ``validation`` is the normalized one on validation.
    """
    names = ("absolute", "normalized", "alpha", "peak_memory", "stored_bytes", "validation")
    values = {name: getattr(run, name) for name in names}
    values |= {"unseen": run.unseen and run.unseen.absolute}
    values |= {"corrupted": run.corrupted and run.corrupted.absolute}
    stages = {f"seconds/{stage}": seconds for stage, seconds in run.seconds.items()}
    return {name: value for name, value in values.items() if value is not None} | stages


def wandb_table(rows: Sequence[dict[str, Any]]) -> Any:
    """Return the rows, which all have the same keys, as a W&B table."""
    import wandb

    return wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
