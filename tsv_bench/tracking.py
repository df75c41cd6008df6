"""Where a finished Run is shown besides the results folder: nowhere, or on Weights & Biases."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tsv_bench.runs import Run

logger = logging.getLogger(__name__)

MODES = (None, "online", "offline", "disabled")
PROMPT_SECONDS = 60  # how long a missing login may ask before it counts as a failure
UPLOAD_SECONDS = 300  # how long the last upload may take; the files are small


class Tracker(Protocol):
    def log_run(self, run: Run, plots: Sequence[Path]) -> None:
        """Show a Run that is already saved, and its plots (PNG). Never raises."""


class NoTracker:
    def log_run(self, run: Run, plots: Sequence[Path]) -> None:
        """Nothing: the results folder has it all."""


@dataclass(frozen=True, kw_only=True)
class WandbTracker:
    """One W&B run per Run; ``None`` leaves a choice to the environment (WANDB_MODE, WANDB_DIR)."""

    project: str
    entity: str | None
    group: str | None
    mode: str | None
    dir: str | None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(
                f"tracker.mode={self.mode!r} is unknown; it must be online, offline or disabled, "
                "or null to let WANDB_MODE decide."
            )

    def log_run(self, run: Run, plots: Sequence[Path]) -> None:
        try:
            self._log_run(run, plots)
        # Whatever goes wrong in there (no login, no network, no space, wandb itself), the Run is
        # saved and the other methods of the comparison still wait: say it and go on.
        except Exception as error:
            logger.warning(
                "W&B did not take the run of %s on %s: %s: %s. Its results are saved all the same; "
                "WANDB_MODE=offline tracker=wandb works without login and network.",
                run.method,
                run.suite,
                type(error).__name__,
                error,
            )

    def _log_run(self, run: Run, plots: Sequence[Path]) -> None:
        import wandb  # here, because importing it takes a second that tracker=none need not spend

        settings = wandb.Settings(
            console="off",
            silent=True,
            login_timeout=PROMPT_SECONDS,
            finish_timeout=UPLOAD_SECONDS,
            finish_timeout_raises=True,
        )
        if self.dir is not None:
            Path(self.dir).mkdir(parents=True, exist_ok=True)  # else wandb writes elsewhere
        with wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group or f"{run.backbone}-{run.suite}",
            name=f"{run.method}-{run.fingerprint}",
            mode=self.mode,
            dir=self.dir,
            config=configuration(run),
            settings=settings,
        ) as wandb_run:
            wandb_run.define_metric("alpha_curve/alpha", summary="none")
            wandb_run.define_metric(
                "alpha_curve/normalized", step_metric="alpha_curve/alpha", summary="max"
            )
            for point in run.alpha_curve:
                wandb_run.log({f"alpha_curve/{name}": value for name, value in point.items()})
            tables = {"tasks": task_rows(run)}
            if run.alpha_curve:
                tables["alpha_curve/table"] = run.alpha_curve
            wandb_run.log(
                {name: wandb_table(rows) for name, rows in tables.items()}
                | {f"plots/{plot.stem}": wandb.Image(str(plot)) for plot in plots}
            )
            wandb_run.summary.update(summary(run))


def configuration(run: Run) -> dict[str, Any]:
    """What the Run is and how to make it again."""
    names = ("backbone", "suite", "method", "label", "seed", "knobs", "settings", "fingerprint")
    return {name: getattr(run, name) for name in (*names, "versions", "commit", "machine")}


def task_rows(run: Run) -> list[dict[str, Any]]:
    """One row per task, on test; accuracies in [0, 1]."""
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


def summary(run: Run) -> dict[str, float]:
    """Accuracies in [0, 1], seconds per stage, peak memory in bytes."""
    names = ("absolute", "normalized", "alpha", "peak_memory")
    stages = {f"seconds/{stage}": seconds for stage, seconds in run.seconds.items()}
    return {name: getattr(run, name) for name in names} | stages


def wandb_table(rows: Sequence[dict[str, Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
