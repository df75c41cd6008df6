"""W&B fails or is killed at each of its steps: no Run is lost, and the next one is tracked."""

import errno
import gc
import os
import signal
from functools import partial
from pathlib import Path

import pytest
import wandb
from made_up.tracked import PRETRAINED, RUN, SERVED, tracker
from PIL import Image
from stand_ins.commands import SMALL, begin_from, numbers, runs, tsv
from stand_ins.wandb_files import of_type, own_folders, records, summary, values

from tsv_bench.benchmark import weights
from tsv_bench.benchmark.runs import find_runs, load_correct
from tsv_bench.report import tracking

Run = wandb.sdk.wandb_run.Run
# The steps of logging a Run in their order: function -> the object that has it.
STEPS = {
    "init": wandb,
    "define_metric": Run,
    "log": Run,
    "Table": wandb,
    "line": wandb.plot,
    "Image": wandb,
    "update": wandb.sdk.wandb_summary.SummaryDict,
    "save_file": weights,
    "add_file": wandb.Artifact,
    "log_artifact": Run,
    "finish": Run,
}


# wandb does not wait for a process of its own that has died.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


class Killed(BaseException):
    """An exception that no handler of errors catches."""


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    own_folders(monkeypatch, tmp_path)
    yield
    monkeypatch.undo()
    wandb.teardown()


@pytest.fixture(autouse=True, scope="module")
def collected():
    yield
    gc.collect()  # what warns of it, here and not in another module's tests


def fails(monkeypatch, step, error):
    def call(*args, **settings):
        raise error

    monkeypatch.setattr(STEPS[step], step, call)


def log(folder, **settings):
    """Log RUN with a plot and its weights."""
    plot = Path(folder) / "accuracy.png"
    Image.new("RGB", (4, 3)).save(plot)
    write = partial(weights.write_weights, RUN, PRETRAINED, SERVED)
    tracker(folder, artifact=True, **settings).log_run(RUN, [plot], write)


def whole(folder):
    """Count the W&B runs below the folder that have all of a Run."""
    wandb.teardown()
    found = [list(records(path)) for path in folder.glob("wandb/offline-run-*/*.wandb")]
    return sum(
        summary(each).get("absolute") == RUN.absolute
        and any(a.type == "model" for a in of_type(each, "artifact"))
        and any("plots/accuracy.path" in values(h.item) for h in of_type(each, "history"))
        for each in found
    )


@pytest.mark.parametrize("step", STEPS)
def test_a_failure_at_any_step_is_a_warning_and_the_next_run_is_whole(
    step, tmp_path, monkeypatch, caplog
):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch:
        fails(patch, step, full)
        log(tmp_path)
    assert caplog.text.count("W&B did not take the run of tsv_merge on mini2: OSError") == 1
    assert "No space left on device" in caplog.text
    log(tmp_path)
    assert caplog.text.count("did not take") == 1
    assert whole(tmp_path) >= 1


def kill_service():
    """Send SIGKILL to the process that wandb does its work in."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    for child in {pid for path in children for pid in path.read_text().split()}:
        if "wandb-core" in Path(f"/proc/{child}/cmdline").read_text():
            os.kill(int(child), signal.SIGKILL)
            return
    pytest.skip("wandb-core is not among this process's children")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds children by /proc")
@pytest.mark.parametrize("step", ["define_metric", "Table", "finish"])
def test_the_death_of_wandbs_process_is_a_warning_and_the_next_run_is_whole(
    step, tmp_path, monkeypatch, caplog
):
    work, killed = getattr(STEPS[step], step), []

    def call(*args, **settings):
        if not killed:
            killed.append(kill_service())
        return work(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(STEPS[step], step, call)
        log(tmp_path)
    assert caplog.text.count("W&B did not take the run of tsv_merge on mini2") == 1
    caplog.clear()
    log(tmp_path)
    assert "did not take" not in caplog.text
    assert whole(tmp_path) >= 1


def test_a_server_that_cannot_be_reached_is_not_waited_for_long(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    for seconds in (0.25, 1, 4, 16, 64):  # a busy machine has not asked the server in the first
        caplog.clear()
        monkeypatch.setattr(tracking, "START_SECONDS", seconds)
        log(tmp_path, mode="online")
        if "connection refused" in caplog.text:
            break
    assert "W&B did not take the run of tsv_merge on mini2: CommError" in caplog.text
    assert "connection refused" in caplog.text


@pytest.fixture(scope="module")
def made(fine_tuned, tmp_path_factory):
    """Make a folder with data and checkpoints, and the Run that tracker=none leaves."""
    folder = begin_from(fine_tuned, tmp_path_factory.mktemp("made"))
    result = tsv(folder, "bench", *BENCH)
    assert result.code == 0, result.err
    return folder


BENCH = ["method=task_arithmetic", "method.alphas=[0.5,1.0]", *SMALL]


def tracked(made, folder, *arguments):
    return tsv(
        folder, "bench", *arguments, *SMALL, "tracker=wandb", "tracker.artifact=true",
        f"paths.data={made / 'data'}", f"paths.checkpoints={made / 'checkpoints'}",
        f"tracker.dir={folder}",
    )  # fmt: skip


@pytest.mark.parametrize("step", ["init", "save_file"])
def test_the_run_is_on_disk_before_wandb_begins(step, made, tmp_path, monkeypatch):
    """A kill while wandb begins, or while it takes the weights, leaves all files of the Run."""
    with monkeypatch.context() as patch:
        fails(patch, step, Killed())
        with pytest.raises(Killed):
            tracked(made, tmp_path, *BENCH[:2])
    assert numbers(tmp_path, "task_arithmetic") == numbers(made, "task_arithmetic")


def test_each_job_of_a_comparison_is_one_wandb_run_failures_and_finished_ones_too(
    made, tmp_path, monkeypatch
):
    arguments = ["--multirun", "method=zero_shot,weight_average"]
    monkeypatch.setattr(tracking, "log_results", once_failing(tracking.log_results))
    result = tracked(made, tmp_path, *arguments)
    assert result.code == 0, result.err
    assert result.err.count("W&B did not take the run of weight_average") == 1
    assert all(label in result.out for label in ("Zero-shot", "Weight average"))
    found = runs(tmp_path)
    assert set(found) == {"zero_shot", "weight_average"}
    for path, _ in find_runs(tmp_path / "runs"):
        load_correct(path)

    again = tracked(made, tmp_path, *arguments)
    assert again.code == 0 and again.err.count("already there") == 2
    assert "did not take" not in again.err and again.err.count("no artifact of") == 2
    wandb.teardown()
    logged = {}
    for path in tmp_path.glob("wandb/offline-run-*/*.wandb"):
        each = list(records(path))
        [run] = of_type(each, "run")
        logged.setdefault(run.job_type, []).append(summary(each).get("absolute"))
    own = {method: run.absolute for method, run in found.items()}
    missing = {"weight_average": [None]}
    expected = {method: missing.get(method, [own[method]]) + [own[method]] for method in own}
    assert {m: sorted(values, key=str) for m, values in logged.items()} == {
        m: sorted(values, key=str) for m, values in expected.items()
    }


def once_failing(work):
    """Wrap a function so that it fails when it logs weight_average for the first time."""
    failed = []

    def call(wandb_run, run, plots):
        if run.method == "weight_average" and not failed:
            failed.append(run)
            raise wandb.Error("made up")
        return work(wandb_run, run, plots)

    return call
