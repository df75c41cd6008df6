"""The commands, called in this process or started in one of their own, on two small tasks."""

import contextlib
import io
import logging
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import jaxtyping
import torch
from PIL import Image
from stand_ins.processes import Started

from tsv_bench.benchmark.runs import find_runs, load_correct
from tsv_bench.cli import analyze, bench, fetch, finetune, merge, observe, report, task
from tsv_bench.cli.config import objects
from tsv_bench.data import cache
from tsv_bench.models import head
from tsv_bench.report.plots import style

COMMANDS = {
    "analyze": analyze,
    "bench": bench,
    "fetch": fetch,
    "finetune": finetune,
    "merge": merge,
    "observe": observe,
    "report": report,
    "task": task,
}
TASKS = ("signs", "shapes")


def small(prefix, tasks):
    """Four steps of fine-tuning for each task; less than a second on an idle core."""
    sizes = {"train": 64, "val": 10, "test": 25}
    return [
        "threads=1",
        "backbone.finetune.batch_size=32",
        *(f"{prefix}.{task}.epochs=2" for task in tasks),
        *(f"{prefix}.{t}.source.num_images.{s}={n}" for t in tasks for s, n in sizes.items()),
    ]


SMALL = [f"suite.tasks=[{','.join(TASKS)}]", *small("suite.tasks", TASKS)]


def begin_from(fine_tuned, folder):
    """A folder in which the small tasks are fine-tuned already (the fixture's; to be copied)."""
    return Path(shutil.copytree(fine_tuned, folder, dirs_exist_ok=True))


@dataclass
class Result:
    code: int
    out: str
    err: str


def tsv(folder, command, *arguments, drawn=False):
    """Call a command in ``folder`` as a process of its own would find it: nothing remembered.

    Figures are made, but written as empty pictures unless they are to be ``drawn``: that takes
    longer than a small command does. Shapes are not checked, as for a user: the tests of each
    function do that.
    """
    cache._opened.clear()
    head._built.clear()
    objects._load_backbone.cache_clear()
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv, threads, root = sys.argv, torch.get_num_threads(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    path, modules = sys.path[:], set(sys.modules)
    sys.argv = [f"tsv-{command}", *arguments]
    try:
        with (
            contextlib.nullcontext() if drawn else mock.patch.object(style, "_write", blank),
            mock.patch.object(jaxtyping.config, "jaxtyping_disable", True),
            contextlib.chdir(folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            COMMANDS[command].main()
    except SystemExit as exit:
        code = exit.code or 0
    finally:
        sys.argv, root.handlers[:], root.level = argv, handlers, level
        sys.path[:] = path
        for name in set(sys.modules) - modules:  # a method of the folder's own
            if str(getattr(sys.modules[name], "__file__", None)).startswith(f"{folder}{os.sep}"):
                del sys.modules[name]
        torch.set_num_threads(threads)
    return Result(code, out.getvalue(), err.getvalue())


def blank(figure, file, *, format, **how):
    if format == "svg":
        file.write(b'<svg xmlns="http://www.w3.org/2000/svg"/>')
    else:
        Image.new("RGB", (4, 3)).save(file, format)


# For a new interpreter. Shells start background jobs with SIGINT ignored; children inherit it.
PROCESS = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "runpy.run_module('tsv_bench.cli.{}', run_name='__main__', alter_sys=True)"
)


def start(folder, *arguments, command="bench", hold=None):
    """A command in a process of its own, whose figures are empty; ``hold`` as in `processes`."""
    return Started(folder, run, command, arguments, hold=hold)


def run(command, arguments):
    sys.argv = [f"tsv-{command}", *arguments]
    with mock.patch.object(style, "_write", blank):
        COMMANDS[command].main()


def interrupt(process, text, number):
    """Send a signal to a held process, which has shown ``text`` by then, and wait for its end."""
    process.wait_until_held()
    assert text in process.err
    process.send(number)
    process.wait()


def runs(folder):
    """Method -> Run, of a folder with one Run for each."""
    found = [run for _, run in find_runs(Path(folder) / "runs")]
    methods = {run.method: run for run in found}
    assert len(methods) == len(found)
    return methods


def numbers(folder, method):
    """What two computations of the same Run must share, to the last bit."""
    [(path, run)] = find_runs(Path(folder) / "runs", method=method)
    correct = {task: hits.tolist() for task, hits in load_correct(path).items()}
    same = (run.test, run.val, run.alpha_curve, run.absolute, run.normalized, run.normalizer)
    return run.fingerprint, run.checkpoints, same, correct


def checkpoints(folder):
    found = Path(folder).glob("checkpoints/**/*.safetensors")
    return sorted(path for path in found if not path.name.startswith("pretrained"))
