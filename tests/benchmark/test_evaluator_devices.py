"""One cell on several devices: names of the CPU stand for GPUs, two where there are some."""

from functools import partial

import made_up.tasks
import numpy as np
import pytest
import torch

from tsv_bench import methods
from tsv_bench.benchmark import evaluator as module
from tsv_bench.benchmark.evaluator import Evaluation, Evaluator, SeveralDevices
from tsv_bench.data import Split
from tsv_bench.methods.learned.adapters import AdaptedVector, Adapter
from tsv_bench.methods.served import served_by
from tsv_bench.models.spread import Spread

SIZES = {"a": 40, "b": 7, "c": 90, "d": 23, "e": 64}  # images
DIM = made_up.tasks.DIM
GPUS = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]


def split(count):
    size = made_up.tasks.SIZE
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    return Split(images, torch.arange(count) % 3)


@pytest.fixture
def suite():
    """(backbone, heads, splits) of five small tasks."""
    heads = {task: torch.randn(3, DIM) for task in SIZES}
    return made_up.tasks.backbone(), heads, {task: split(n) for task, n in SIZES.items()}


def vectors(backbone):
    pretrained = backbone.pretrained.items()
    return {task: {name: torch.randn_like(p) for name, p in pretrained} for task in SIZES}


def adapted(given):
    adapters = {task: Adapter(torch.randn(3, DIM), torch.randn(DIM, 3)) for task in SIZES}
    return {task: AdaptedVector(given["a"], lambda _: adapters) for task in SIZES}


FORMS = {
    "one for all": lambda given: dict.fromkeys(SIZES, given["a"]),
    "one each": lambda given: given,
    "computed": lambda given: served_by(
        partial(methods.tsv_compress, rank_fraction=0.5), given, "tsv_compress"
    ),
    "bits": lambda given: served_by(methods.emr, given, "emr").in_memory(),
    "adapted": adapted,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "devices", [["cpu"] * 3, pytest.param(["cuda:0", "cuda:1"], marks=GPUS)], ids=["cpu", "gpus"]
)
def test_accuracies_are_those_of_one_device_to_the_bit(form, devices, suite):
    backbone, heads, splits = suite
    served, done = FORMS[form](vectors(backbone)), []
    alone = Evaluator(backbone, heads, devices[0], batch_size=16)
    several = SeveralDevices(backbone, heads, devices, batch_size=16)
    for alpha in (0.3, 1.0):
        expected = alone.correct(served, alpha, splits)
        found = several.correct(served, alpha, splits, lambda: done.append(1))
        assert list(found) == list(splits)
        assert all(np.array_equal(found[task], expected[task]) for task in splits)
        in_turn = [*several.correct_in_turn(served, alpha, splits.items())]
        assert [task for task, _ in in_turn] == list(splits)
        assert all(np.array_equal(hits, expected[task]) for task, hits in in_turn)
    assert len(done) == 2 * len(SIZES)


def test_the_longest_tasks_begin(suite, monkeypatch):
    begun, run = [], Spread.run

    def noted(self, work, pieces, name):
        begun.extend(name(piece) for piece in pieces)
        return run(self, work, pieces, name)

    monkeypatch.setattr(Spread, "run", noted)
    backbone, heads, splits = suite
    served = dict.fromkeys(SIZES, vectors(backbone)["a"])
    SeveralDevices(backbone, heads, ["cpu"] * 2).correct(served, 1.0, splits)
    assert begun == ["c", "e", "a", "d", "b"]


def test_a_vector_for_all_is_loaded_once_a_device(suite, monkeypatch):
    loaded, apply = [], module.task_vector.apply
    monkeypatch.setattr(module.task_vector, "apply", lambda *args: loaded.append(1) or apply(*args))
    backbone, heads, splits = suite
    served = dict.fromkeys(SIZES, vectors(backbone)["a"])
    SeveralDevices(backbone, heads, ["cpu"] * 2).correct(served, 1.0, splits)
    assert 1 <= len(loaded) <= 2


def test_an_error_on_one_device_ends_the_cell_with_the_tasks_name(suite):
    backbone, heads, splits = suite
    served = dict.fromkeys(SIZES, vectors(backbone)["a"])
    several = SeveralDevices(backbone, heads | {"d": torch.randn(3, DIM + 1)}, ["cpu"] * 2)
    with pytest.raises(RuntimeError, match="^d on cpu: .*mat1 and mat2 shapes"):
        several.correct(served, 1.0, splits)
    with pytest.raises(ValueError, match="^b on cpu: no images to evaluate"):
        several.correct(served, 1.0, {"a": splits["a"], "b": split(0)})
    left = {task: splits[task] for task in "abc"}
    expected = Evaluator(backbone, heads, "cpu").correct(served, 1.0, left)
    assert all(
        np.array_equal(hits, expected[task])
        for task, hits in several.correct(served, 1.0, left).items()
    )


def test_there_are_no_more_copies_than_tasks(suite):
    backbone, heads, _ = suite

    def evaluator(devices, tasks):
        evaluation = Evaluation(("cpu",) * devices, None, "float32", None)
        return evaluation.evaluator(backbone, {task: heads[task] for task in tasks})

    assert type(evaluator(1, "abc")) is Evaluator and type(evaluator(8, "a")) is Evaluator
    assert len(evaluator(8, "ab")._each) == 2 and len(evaluator(2, "abc")._each) == 2
