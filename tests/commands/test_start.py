"""How commands start: what is wrong is said before torch is imported, and all import little."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_up.runs import make_run

from tsv_bench.benchmark.runs import save_run
from tsv_bench.cli import launch

ROOT = Path(__file__).resolve().parents[2]
# Command line -> what is said; None: it ends well.
LINES = {
    "analyze --help": None,
    "fetch --cfg job": None,
    "analyze pretrained=a finetuned={b:b} output=c": "pretrained: no checkpoint at a. Paths are",
    "bench metod=ties": "unknown key 'metod'; did you mean 'method'",
    "bench method.alphas=[]": "method.alphas is empty",
    "bench layout=x": "layout='x' is unknown; there are: runs, paper, leaderboard",
    "bench progress=no_bars": "progress='no_bars' is neither true nor false",
    "finetune task=signs seed=one": "seed='one' is not a whole number",
    "merge": "pretrained= is missing. As in: tsv-merge method=tsv_merge pretrained=",
    "merge method=tiees": "unknown method 'tiees'; did you mean 'ties'",
    "merge pretrained=a finetuned={b:b} output=c write=all": "write='all' is unknown",
    "observe finetuned=a output=b kinds=[input]": "kinds=['input'] is not a list of some of",
    "bench backbone=open_clip": "backbone.name= is missing. As in: backbone=open_clip",
    "task name=birds": "the folder is missing. As in: tsv-task pics name=birds",
    "task pics name=digits": "there is a packaged task 'digits'",
    "task pics name=birds": "there is no folder ",
    "report paths.runs=nowhere": "no Run in nowhere: looked for json files in",
}
# Prints of each command line of the standard input what came of it, and what was imported by then.
RUN = """
import contextlib, importlib, io, json, sys
from stand_ins import composing

composing.shorten()
for line in json.load(sys.stdin):
    command, *arguments = line.split()
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = [f"tsv-{command}", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            importlib.import_module(f"tsv_bench.cli.{command}").main()
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([line, code, out.getvalue(), err.getvalue(), sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What came of the command lines and of a report, one after another in one interpreter."""
    folder, lines = tmp_path_factory.mktemp("start"), [*LINES, "report html=true"]
    save_run(*make_run("ties"), folder / "runs")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=folder, input=json.dumps(lines),
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_help_and_mistakes_need_no_torch(ran):
    assert [line for line, *_ in ran[:-1]] == list(LINES)
    for line, code, out, err, modules in ran[:-1]:
        wanted = LINES[line]
        assert "torch" not in modules, line
        assert code == (wanted is not None) and (wanted or "") in err, (line, err)
        assert (out == "") == (wanted is not None), line


OTHERS = {"open_clip", "torchvision", "transformers", "datasets", "sklearn", "wandb", "pandas"}
OTHERS |= {"pyarrow", "timm", "torch._dynamo"}


def test_a_report_takes_no_torch(ran):
    _, code, _, err, modules = ran[-1]
    assert code == 0 and not {"torch", *OTHERS} & set(modules), err


def test_the_last_looks_for_garbage_are_spared_but_beside_who_counts_what_is_left(monkeypatch):
    frozen = []
    monkeypatch.setattr(launch.gc, "freeze", lambda: frozen.append(True))
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    launch.leave_quickly()
    assert frozen
    monkeypatch.setitem(sys.modules, "triton", sys)
    launch.leave_quickly()
    assert len(frozen) == 1
