"""Ctrl-C, kill -9 and two commands at once: processes of their own, in one folder."""

import shlex
import shutil
import signal

import pytest
from stand_ins.commands import SMALL, checkpoints, interrupt, numbers, start, tsv

from tsv_bench.checkpoints.checkpoint import load_record

STEP = ("tsv_bench.models.finetuning", "batch_rows")  # called at each of a task's four steps
COMMAND = ["--multirun", "method=weight_average", *SMALL]


@pytest.fixture(scope="module")
def two_at_once(tmp_path_factory):
    """The folder of two commands that ran at the same time, and what they printed."""
    folder = tmp_path_factory.mktemp("two")
    with start(folder, *COMMAND) as first, start(folder, *COMMAND) as second:
        codes = first.wait(), second.wait()
    printed = [(process.out, process.err) for process in (first, second)]
    assert codes == (0, 0), printed
    return folder, printed


def test_two_commands_at_once_give_one_valid_set_of_files(two_at_once):
    folder, printed = two_at_once
    tables = [out.split("wrote")[0] for out, _ in printed]
    assert all("Weight average" in table for table in tables)
    left = [path.name for path in folder.rglob("*") if path.suffix in (".tmp", ".resume")]
    assert left == [] and len(checkpoints(folder)) == 2
    assert all(load_record(path) for path in checkpoints(folder))
    assert sum("fine-tune Signs" in err for _, err in printed) == 1  # one waited for the other
    again = tsv(folder, "bench", *COMMAND)
    assert again.code == 0 and again.err.count("already there") == 1


def test_what_was_killed_then_interrupted_is_finished_as_if_never_stopped(two_at_once, tmp_path):
    shutil.copytree(two_at_once[0] / "data", tmp_path / "data")
    with start(tmp_path, *COMMAND, hold=(*STEP, 3)) as process:
        interrupt(process, "fine-tune Signs", signal.SIGKILL)
    assert process.code == -signal.SIGKILL
    assert checkpoints(tmp_path) == []

    with start(tmp_path, *COMMAND, hold=(*STEP, 4 + 3)) as process:
        interrupt(process, "fine-tune Shapes", signal.SIGINT)  # Ctrl-C
    assert process.code == 130
    assert "Traceback" not in process.err
    command = process.err.strip().splitlines()[-1].partition("go on with: ")[2]
    assert shlex.split(command)[1:] == COMMAND  # to be pasted into a shell
    assert [path.stem.partition("-")[0] for path in checkpoints(tmp_path)] == ["signs"]

    result = tsv(tmp_path, "bench", *shlex.split(command)[1:])
    assert result.code == 0, result.err
    assert "fine-tune Signs" not in result.err and "fine-tune Shapes" in result.err
    assert numbers(tmp_path, "weight_average") == numbers(two_at_once[0], "weight_average")
    assert not [*tmp_path.rglob("*.resume"), *tmp_path.rglob("*.tmp")]
