"""What is wrong with a command is said before long work: one message, exit code 1, nothing made."""

import errno
import os
import resource

import pytest
import torch
from huggingface_hub import constants
from stand_ins.commands import SMALL, checkpoints, tsv

from tsv_bench.cli import launch
from tsv_bench.cli.config import objects
from tsv_bench.cli.typed import mistakes
from tsv_bench.data import cache


@pytest.fixture(autouse=True)
def no_work(monkeypatch, tmp_path):
    """The data come first; a mistake that is not found by then fails the test there."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(cache, "build_dataset", lambda *args: pytest.fail("went to work"))


# Found before the data are built and before any fine-tuning.
MISTAKES = {
    "method=tsv_mrge": "unknown method 'tsv_mrge'; did you mean 'tsv_merge'",
    "suite.tasks=[sings]": "unknown task 'sings'; did you mean 'signs'",
    "suite.tasks=[]": "the suite has no tasks",
    "metod=ties": "unknown key 'metod'; did you mean 'method'",
    "+method.rank_fractoin=0.1": "knob 'rank_fractoin' of tsv_merge does not reach its function",
    "method.rank_fraction=2": "rank_fraction=2 is not in (0, 1]",
    "method.rank_fraction=half": "rank_fraction",
    "method.polar=qr": "polar='qr'",
    "method.exclude=true": "exclude=True is not a list of patterns",
    "method.exclude={a:1}": "exclude={'a': 1} is not a list of patterns",
    "method.name=ties": "does not choose it: method=ties does.",
    "method.merge_alpha=x": "merge_alpha in the yaml of tsv_merge is 'x'. It is a number",
    "method.merge_alpha={a:1}": "merge_alpha in the yaml of tsv_merge is {'a': 1}",
    "method.task_weights=x": "task_weights in the yaml of tsv_merge is 'x'. It is scale or",
    "method.rank_fraction=${nothing}": "${nothing} is no setting. A setting is named from the top",
    "method.rank_fraction=${method.rank_fraction}": "${...} refers to itself",
    "paths.runs=${oc.env:NO_SUCH}": "the environment has no variable NO_SUCH.",
    "paths.runs=${nope:1}": "${nope:...} is unknown. There are ${oc.env:NAME}",
    "method=esm_plus_plus method.base_knobs=x": "base_knobs='x' is not a mapping of knobs",
    "method=esm_plus_plus method.base_knobs={density:1}": "base_knobs has 'density', which ESM",
    "method=atm method.merge_knobs=false": "merge_knobs=False has no effect",
    "method=consensus_ta method.choose.candidates=0.3": "has no list of candidates. As in: choose",
    "-m method.rank_fraction=interval(0.1,0.5)": "add hydra/sweeper=optuna (docs/sweeps.md)",
    "experiment=rank_sweep method=ties": "unknown key 'method.rank_fraction': what is chosen here",
    "seed=true": "seed=True is not a whole number",
    "seed=-1": "seed=-1 is not a whole number from 0 to 9007199254740992",
    "seed=9007199254740993": "is not a whole number from 0 to 9007199254740992",
    "backbone.name=vit_b32": "does not choose it: backbone=vit_b32 does.",
    "device=meta": "'meta' is none that torch can use here",
    "device=[cpu,cuda]": "device=cpu,cuda: 'cuda' is none that torch can use here",
    "suite.tasks=[signs] suite.tasks.signs.source._target_=no.Source": "there is no no.Source",
    "+suite.tasks.signs.nothing=1": "Task has no setting 'nothing'.",
    "method.alphas=[]": "method.alphas is empty",
    "method.alphas=3": "method.alphas=3 is not a list",
    "checkpoints=folder": "checkpoints.folder= is missing, which has no default",
    "paths.runs=null": "paths.runs=null is not a path",
    "method.alphas=[0.1,nan]": "every alpha is a number above zero",
    "tracker=wandb tracker.mode=onlin": "tracker.mode='onlin' is unknown",
    "method=ties method.density=0": "density=0 is not in (0, 1]",
    "method=ties method.merge=max": "merge='max'",
    "device=cuda": "device=cuda: 'cuda' is none that torch can use here. There are: cpu",
    "~suite.tasks.signs ~suite.tasks.shapes suite.tasks=[signs,shapes]": "the suite has no tasks",
    "suite.tasks=[signs] suite.tasks.signs.templates=[a sign]": "needs templates with {}",
    "backbone.load.sha256=abc": "mini.safetensors has sha256",
    "backbone.load.weights=nowhere": "nowhere",
    "tsv_merge": "did you mean method=tsv_merge?",
    "task=signs": "suite.tasks=[...], not task=",
    "backbone.finetune.batch_size=0": "batch_size=0 is not a whole number of at least 1",
    "backbone.finetune.rate=fast": "rate='fast' is not a number",
    "normalizer=theirs": "normalizer='theirs' is not one of own, published",
    "normalizer=published": "no accuracy of individual models of 'mini' is published",
    "evaluation.precision=float8": "evaluation.precision='float8' is not one of float32",
    "evaluation.batch_size=0": "evaluation.batch_size=0 is not a whole number of at least 1",
    "evaluation.patience=0": "evaluation.patience=0 is not a whole number of at least 1",
    "suite=vision8 backbone=vit_b32": "9 of the 9 things that are needed from the hub are not here",
    "suite=vision14 suite.tasks.fer2013.prompts=wrong": "has prompts=wrong; it takes one of: corr",
    "suite.name=../suite/mini8": "the suite's name is '../suite/mini8', which becomes a part of",
    "backbone.name=../x": "the backbone's name is '../x', which becomes a part of file names",
    "method.name=../x": "method.name is '../x', which becomes a part of file names",
    "suite.tasks=[signs] suite.tasks.signs.name=../x": "the name of a task is '../x', which",
    "suite.tasks=[signs] suite.tasks.signs.label='\x1b[31m'": "the label of task 'signs' is '\\x1b",
    "method.label='\x1b[31m'": "method.label is '\\x1b[31m'; it needs to be a line",
    "suite.tasks=[signs] suite.tasks.signs.epochs=0": "epochs=0; fine-tuning needs at least one",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_nothing_is_made(mistake, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments = mistake.replace("[a sign]", "[a%sign]").split(" ")
    result = tsv(tmp_path, "bench", *(a.replace("%", " ") for a in arguments))
    assert result.code == 1
    assert MISTAKES[mistake] in result.err
    assert "Traceback" not in result.err and result.out == ""
    assert not list(tmp_path.rglob("*.*"))


def test_a_memory_too_small_for_the_model_is_a_message(tmp_path, monkeypatch):
    def fill(config):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(objects, "make_backbone", fill)
    result = tsv(tmp_path, "bench")
    assert result.code == 1 and "error: CUDA out of memory." in result.err
    assert "Traceback" not in result.err


def test_torchrun_is_for_fine_tuning_only(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = tsv(tmp_path, "bench")
    assert result.code == 1 and "Fine-tune by torchrun with tsv-finetune" in result.err


@pytest.mark.parametrize("command", ["runs", "data", "checkpoints", "runs -m", "report -m"])
def test_a_folder_that_cannot_be_written_is_found_before_fine_tuning(command, tmp_path):
    (tmp_path / "there").write_text("a file")
    folder, *flags = command.split()
    result = tsv(tmp_path, "bench", *flags, f"paths.{folder}=there/{folder}", *SMALL)
    assert result.code == 1
    assert f"cannot write to there/{folder}" in result.err and "Traceback" not in result.err
    assert "building" not in result.err and not checkpoints(tmp_path)


def test_a_report_that_cannot_be_written_is_found_before_runs_are_read(tmp_path):
    (tmp_path / "there").write_text("a file")
    result = tsv(tmp_path, "report", "paths.report=there/report")
    assert result.code == 1 and result.err == (
        f"tsv-report: error: cannot write to {tmp_path / 'there'} (it is a file). Choose another "
        f"folder with paths.report=.\n"
    )


@pytest.mark.parametrize("mistake", ["task=sings", "tsk=signs", "task.signs.epoch=1", "seed=one"])
def test_mistakes_of_other_commands(mistake, tmp_path):
    result = tsv(tmp_path, "finetune", "task=signs", mistake)
    assert result.code == 1 and "Traceback" not in result.err
    assert not list(tmp_path.rglob("*.*"))


def test_a_traceback_is_there_for_who_wants_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="unknown method"):
        tsv(tmp_path, "bench", "method=tsv_mrge")


@pytest.fixture
def few_files():
    """Let this process have no more than 64 files open, though the system allows it more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_command_may_have_as_many_files_open_as_the_system_allows(few_files):
    launch.raise_file_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(few_files, 8192), few_files)


def test_a_message_about_open_files_says_how_to_raise_their_number(capsys, few_files):
    def fail():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "a.safetensors")

    with pytest.raises(SystemExit):
        mistakes.with_messages("tsv-merge", fail)
    message = capsys.readouterr().err
    assert "Too many open files: 'a.safetensors'. This process may have 64 open" in message
    assert "Raise the limit with ulimit -n 8192, or give checkpoints in fewer shards." in message


def test_torchs_threads_wait_without_spinning_for_long_unless_a_user_says_how(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    launch.wait_politely()
    assert os.environ == {"GOMP_SPINCOUNT": launch.SPINS}
    for own in ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}):
        monkeypatch.setattr(os, "environ", dict(own))
        launch.wait_politely()
        assert os.environ == own
