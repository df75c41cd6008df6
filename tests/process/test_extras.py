"""Without the optional packages files are merged, and all else says what to install."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_up.merges import files, write_checkpoints

from tsv_bench.process import extras
from tsv_bench.process.extras import EXTRAS, check_installed
from tsv_bench.report.tracking import WandbTracker

ROOT = Path(__file__).resolve().parents[2]
# Only the packages of the plain installation can be imported; what each line says is printed.
RUN = """
import contextlib, importlib, io, json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

blocked, lines = json.load(sys.stdin)
sys.meta_path.insert(0, Blocked())
for line in lines:
    command, *arguments = line.split()
    err, code = io.StringIO(), 0
    sys.argv = [f"tsv-{command}", *arguments]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        try:
            importlib.import_module(f"tsv_bench.cli.{command}").main()
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([line, code, err.getvalue()]))
assert "torch._dynamo" not in sys.modules  # which takes a second
import tsv_bench
from torch import nn
states = {task: nn.Linear(2, 2).state_dict() for task in "ab"}
tsv_bench.merge(nn.Linear(2, 2), states, "tsv_merge", progress=False)
try:
    tsv_bench.evaluate(states["a"])
except ValueError as error:
    print(json.dumps(["evaluate", 1, str(error)]))
"""


@pytest.mark.slow  # it imports torch
def test_files_are_merged_without_the_optional_packages(tmp_path):
    write_checkpoints(tmp_path)
    named = ",".join(f"{task}:{path}" for task, path in files().items())
    given = f"pretrained=base.safetensors finetuned={{{named}}} cache.folder=null"
    to_install = "needs packages that are not installed, first PIL: pip install 'tsv_bench[bench]'"
    expected = {
        f"merge {given} output=tsv.safetensors": None,
        f"merge method=ties {given} output=ties.safetensors": None,
        f"analyze {given} output=analysis figures=false": None,
        f"analyze {given} output=figures": f"tsv-analyze, unless figures=false, {to_install}",
        **{f"{name} --help": None for name in ("bench", "fetch", "observe")},
        "bench": f"tsv-bench {to_install}",
        "report": f"tsv-report {to_install}",
        "finetune task=signs": f"tsv-finetune {to_install}",
    }
    others = ["pandas", "transformers", "peft", "timm", "pymoo", "beartype", "pytest"]
    blocked = [*others, *(module for modules in EXTRAS.values() for module in modules)]
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tmp_path, input=json.dumps([blocked, list(expected)]),
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *of_commands, of_evaluate = [json.loads(line) for line in done.stdout.splitlines()]
    for line, code, err in of_commands:
        assert code == (expected[line] is not None), (line, err)
        assert (expected[line] or "") in err and "Traceback" not in err, line
    assert len(of_commands) == len(expected)
    assert of_evaluate[2].startswith(f"tsv_bench.evaluate {to_install}")
    assert {"tsv.safetensors", "ties.safetensors"} < {path.name for path in tmp_path.iterdir()}


def test_a_tracker_that_is_not_installed_is_told_before_any_work(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    settings = dict.fromkeys(("entity", "experiment", "group", "mode", "dir"))
    message = r"tracker=wandb needs .* first wandb: pip install 'tsv_bench\[wandb\]'"
    with pytest.raises(ValueError, match=message):
        WandbTracker(project="p", tags=[], artifact=False, **settings)


def test_all_is_installed_here():
    for extra in EXTRAS:
        check_installed(extra, "a test")
