"""tsv_bench.evaluate: the numbers of tsv-bench, for what is in memory, without a configuration."""

import pydoc

import pytest
import torch
from safetensors.torch import load_file
from stand_ins.commands import SMALL, TASKS, begin_from, checkpoints, runs, small, tsv

import tsv_bench
from tsv_bench.cli.config import objects
from tsv_bench.cli.config.overrides import checked, composed
from tsv_bench.task_vectors import TaskVector

SIZES = [line for line in small("suite.tasks", TASKS) if line.startswith("suite")]


@pytest.fixture(scope="module")
def network():
    return objects.make_backbone(composed("bench", checked("bench", [])))


@pytest.fixture(scope="module")
def folder(fine_tuned, tmp_path_factory):
    """A folder with checkpoints, and Runs of two methods on them."""
    folder = begin_from(fine_tuned, tmp_path_factory.mktemp("evaluate"))
    for method in (["method=task_arithmetic", "method.alphas=[0.5]"], ["method=individual"]):
        done = tsv(folder, "bench", *method, *SMALL)
        assert done.code == 0, done.err
    return folder


@pytest.fixture
def evaluate(folder, monkeypatch):
    monkeypatch.chdir(folder)

    def call(model, **arguments):
        return tsv_bench.evaluate(model, TASKS, settings=SIZES, progress=False, **arguments)

    return call


def paths(folder):
    return {path.name.split("-")[0]: path for path in checkpoints(folder)}


def test_a_vector_scores_as_the_run_of_its_method(folder, evaluate, network):
    files = paths(folder)
    vectors = [TaskVector(network.pretrained, load_file(path)) for path in files.values()]
    total = {name: sum(vector[name] for vector in vectors) for name in vectors[0]}
    expected = runs(folder)["task_arithmetic"].test
    assert evaluate(total, alpha=0.5) == expected
    merged = tsv_bench.merge(network.pretrained, files, "task_arithmetic", alpha=0.5)
    # Adding in another order rounds otherwise; no image of fifty is so near to the border.
    whole = {f"visual.{name}": tensor for name, tensor in merged.items()}
    assert evaluate(merged) == evaluate(whole | {"logit_scale": torch.tensor(1.0)}) == expected
    module = torch.nn.Module()
    module.visual = network.visual
    zero = {name: torch.zeros_like(tensor) for name, tensor in total.items()}
    assert evaluate(module) == evaluate(zero, alpha=1) != expected


def test_each_task_may_have_a_model_of_its_own(folder, evaluate, network):
    files = paths(folder)
    expected = runs(folder)["individual"].test
    assert evaluate(files) == expected
    [first, second] = (evaluate(str(files[task])) for task in TASKS)
    assert first[TASKS[0]] == expected[TASKS[0]] and second[TASKS[1]] == expected[TASKS[1]]
    assert evaluate(TaskVector(network.pretrained, load_file(files[TASKS[0]]))) == first
    assert evaluate(files, split="val")[TASKS[0]].total == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"suite": "mini9"}, "unknown suite 'mini9'; did you mean"),
        ({"suite": ["sings"]}, "unknown task 'sings'; did you mean 'signs'"),
        ({"backbone": "min"}, "unknown backbone 'min'; did you mean 'mini'"),
        ({"split": "dev"}, "split='dev' is not a split of a task"),
        ({"alpha": float("nan")}, "alpha=nan is not a finite number"),
        ({"settings": ["--multirun"]}, "settings has '--multirun': each is KEY=VALUE"),
        ({"settings": ["sede=1"]}, "unknown key 'sede'; did you mean 'seed'"),
        ({"model": {"w": torch.zeros(1)}}, "model: it lacks parameters of the backbone 'mini': its "
         "first are w. Expected are"),
        ({"model": {"w": torch.zeros(1)}, "alpha": 1}, "model: its layer 'w' is none of the"),
        ({"model": {"signs": {"w": torch.zeros(1)}}}, "the models are of signs, and the tasks are "
         "digits, "),
        ({"model": 3}, "model: int is no state dict, module or path"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_before_any_work(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        tsv_bench.evaluate(**({"model": {}} | arguments))
    assert not list(tmp_path.iterdir())


def test_help_shows_both():
    text = pydoc.render_doc(tsv_bench, renderer=pydoc.plaintext)
    for shown in ("evaluate(", "merge(", "suite: str | collections.abc.Sequence[str] = 'mini8'"):
        assert shown in text
