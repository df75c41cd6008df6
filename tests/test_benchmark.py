"""A method on a suite, in process: two made-up tasks, a tower of two layers, files on disk."""

from functools import partial

import numpy as np
import pytest
import torch
from made_up_tasks import NUM_IMAGES, backbone, task, tints
from safetensors.torch import save_file

from tsv_bench import benchmark, evaluation, methods
from tsv_bench.benchmark import Method, evaluate_method, open_task_vectors
from tsv_bench.checkpoints import Checkpoint, sha256
from tsv_bench.data import Split
from tsv_bench.evaluation import Evaluator, correct_images
from tsv_bench.models import head as heads_module
from tsv_bench.models import zero_shot_head
from tsv_bench.runs import Score

TASKS = {
    name: task(name, partial(tints, num_images=NUM_IMAGES, seed=seed), class_names=classes)
    for seed, (name, classes) in enumerate(
        {"tints": ("red", "green", "blue"), "moods": ("angry", "calm", "sad")}.items()
    )
}
KNOBS = {"ties": {"density": 0.5, "merge": "mean"}}


def method(name, alphas=(1.0,)):
    knobs = KNOBS.get(name, {})
    serve = partial(getattr(methods, name), **knobs)
    return Method(name=name, label=name, alphas=list(alphas), knobs=knobs, serve=serve)


class Loader:
    """Gives splits, and remembers which it was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, task, split):
        self.asked.append((task.name, split))
        images, labels = zip(*task.source(split), strict=True)
        return Split(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.tensor(labels))


def write(path, state, scores=None):
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return Checkpoint(path=path, sha256=sha256(path), generation="made up", scores=scores)


def moved(seed, size=0.2):
    """The backbone's parameters, a step away in a random direction."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: param + size * torch.randn(param.shape, generator=generator)
        for name, param in backbone().pretrained.items()
    }


@pytest.fixture
def checkpoints(tmp_path):
    return {
        name: write(tmp_path / f"{name}.safetensors", moved(seed))
        for seed, name in enumerate(TASKS)
    }


def evaluated(checkpoints, *args, load=None, **kwargs):
    return evaluate_method(
        backbone(), TASKS, method(*args, **kwargs), checkpoints, load or Loader(), "cpu"
    )


def test_individual_models_are_the_normalizer(checkpoints):
    outcome = evaluated(checkpoints, "individual")
    assert outcome.normalized == pytest.approx(1.0, abs=1e-12)  # a mean of ones
    for name in TASKS:
        assert outcome.normalizer[name] == evaluation.score(outcome.test[name])


def test_zero_shot_is_the_pretrained_model(checkpoints):
    outcome = evaluated(checkpoints, "zero_shot")
    for name, made_up in TASKS.items():
        head, split = zero_shot_head(backbone(), made_up), Loader()(made_up, "test")
        expected = correct_images(backbone().visual, head, split, "cpu")
        np.testing.assert_array_equal(outcome.test[name], expected)


def test_absolute_and_normalized_are_means_over_tasks_in_fractions(checkpoints):
    outcome = evaluated(checkpoints, "weight_average")
    accuracy = {name: hits.mean() for name, hits in outcome.test.items()}
    ratios = [accuracy[name] / outcome.normalizer[name].accuracy for name in TASKS]
    assert list(outcome.test) == list(TASKS)
    assert outcome.absolute == pytest.approx(np.mean(list(accuracy.values())))
    assert outcome.normalized == pytest.approx(np.mean(ratios))


def test_scores_beside_a_checkpoint_are_believed(checkpoints, tmp_path):
    known = {split: Score(accuracy=0.5, correct=15, total=30) for split in ("val", "test")}
    load = Loader()
    believed = {
        name: Checkpoint(path=c.path, sha256=c.sha256, generation="finetune", scores=known)
        for name, c in checkpoints.items()
    }
    outcome = evaluated(believed, "zero_shot", load=load)
    assert outcome.normalizer == dict.fromkeys(TASKS, known["test"])
    assert outcome.normalized == pytest.approx(2 * outcome.absolute)
    assert {split for _, split in load.asked} == {"test"}


def test_a_fixed_alpha_costs_no_validation(checkpoints, monkeypatch):
    monkeypatch.setattr(benchmark, "_individual", {})
    evaluated(checkpoints, "individual")  # measures the normalizer, on val too
    load = Loader()
    outcome = evaluated(checkpoints, "task_arithmetic", alphas=[0.3], load=load)
    assert {split for _, split in load.asked} == {"test"}
    assert (outcome.alpha, outcome.curve, outcome.val) == (0.3, {}, {})


def test_every_alpha_is_evaluated_on_validation_and_the_first_best_on_test(
    checkpoints, monkeypatch
):
    evaluated(checkpoints, "individual")
    calls = []
    # Right on so many images of each task at these alphas: twice the best, the smaller one wins.
    right = {0.5: 5, 1.0: 15, 1.5: 15, 2.0: 10}

    def correct(self, served, alpha, splits, done):
        calls.append((alpha, {name: len(split) for name, split in splits.items()}))
        return {name: np.arange(len(split)) < right[alpha] for name, split in splits.items()}

    monkeypatch.setattr(Evaluator, "correct", correct)
    outcome = evaluated(checkpoints, "task_arithmetic", alphas=[2.0, 1.5, 0.5, 1.0])
    val, test = (dict.fromkeys(TASKS, NUM_IMAGES[split]) for split in ("val", "test"))
    assert calls == [*((alpha, val) for alpha in (0.5, 1.0, 1.5, 2.0)), (1.0, test)]
    assert outcome.alpha == 1.0
    assert list(outcome.curve) == [0.5, 1.0, 1.5, 2.0]
    assert outcome.curve[1.0] == outcome.curve[1.5] == pytest.approx(3 * outcome.curve[0.5])
    assert {name: hits.sum() for name, hits in outcome.val.items()} == dict.fromkeys(TASKS, 15)


def test_the_curve_is_normalized_by_the_individual_models_on_validation(checkpoints, monkeypatch):
    monkeypatch.setattr(benchmark, "_individual", {})
    outcome = evaluated(checkpoints, "individual", alphas=[0.01, 1.0])
    assert outcome.curve[1.0] == pytest.approx(1.0, abs=1e-12)


def test_a_merged_vector_is_loaded_once_for_all_tasks(checkpoints, monkeypatch):
    applied = []
    apply = evaluation.task_vectors.apply
    monkeypatch.setattr(
        evaluation.task_vectors, "apply", lambda *args: applied.append(args[2]) or apply(*args)
    )
    evaluated(checkpoints, "individual")
    applied.clear()
    evaluated(checkpoints, "ties", alphas=[0.5, 1.0])
    assert applied[:2] == [0.5, 1.0] and len(applied) == 3  # and once on test


def test_heads_and_individual_models_are_evaluated_once_for_several_methods(
    checkpoints, monkeypatch
):
    monkeypatch.setattr(benchmark, "_individual", {})
    monkeypatch.setattr(heads_module, "_built", {})
    built, measured = [], []
    build, correct = heads_module.build_head, Evaluator.correct
    monkeypatch.setattr(
        heads_module, "build_head", lambda b, task: built.append(task.name) or build(b, task)
    )

    def counted(self, served, alpha, splits, *done):
        if len(splits) == 1:
            measured.extend(splits)
        return correct(self, served, alpha, splits, *done)

    monkeypatch.setattr(Evaluator, "correct", counted)
    for name in ("zero_shot", "weight_average", "ties", "tsv_merge", "individual"):
        evaluated(checkpoints, name)
    assert built == list(TASKS)
    assert measured == ["tints", "tints", "moods", "moods"]  # val and test


def test_stages_are_timed(checkpoints):
    outcome = evaluated(checkpoints, "weight_average")
    assert {"merge", "alpha", "test"} <= set(outcome.seconds)
    assert all(seconds >= 0 for seconds in outcome.seconds.values())


def nan_somewhere():
    state = moved(0)
    state["3.weight"][2, 3] = float("nan")
    return state


FOREIGN = {
    "of another width": (
        {name: torch.zeros(2 * len(param)) for name, param in moved(0).items()},
        "'1.weight' is .16, 108. in the pretrained and .32,.* written by the same backbone",
    ),
    "with other names": (
        {f"visual.{name}": param for name, param in moved(0).items()},
        "different parameters: 6 appear in only one of them, first '1.bias'",
    ),
    "with NaN": (nan_somewhere(), "holds NaN or infinity in '3.weight'.*delete it"),
    "with infinity": ({**moved(0), "1.bias": torch.full((16,), -torch.inf)}, "in '1.bias'"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_checkpoint_that_cannot_be_used_is_named_before_any_evaluation(
    kind, checkpoints, tmp_path, monkeypatch
):
    state, message = FOREIGN[kind]
    # The last one: the first is fine, and must not be evaluated before the last was looked at.
    checkpoints["moods"] = write(tmp_path / "moods.safetensors", state)
    monkeypatch.setattr(Evaluator, "correct", lambda *args: pytest.fail("evaluated"))
    with pytest.raises(ValueError, match=f"the checkpoint of moods at .*moods.safe.*{message}"):
        evaluated(checkpoints, "weight_average")


@pytest.mark.parametrize("size", [0, 100, 2000])
def test_a_truncated_checkpoint_is_named(size, checkpoints):
    path = checkpoints["moods"].path
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="the checkpoint of moods at .* not a whole safetensors"):
        open_task_vectors(backbone(), checkpoints)


def test_a_missing_checkpoint_is_named(checkpoints):
    checkpoints["moods"].path.unlink()
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*moods.safetensors"):
        open_task_vectors(backbone(), checkpoints)


@pytest.mark.parametrize(
    ("name", "knobs", "alphas", "message"),
    [
        ("ties", {"density": 0}, [1.0], r"density=0 is not in \(0, 1\]"),
        ("ties", {"density": 0.1, "merge": "max"}, [1.0], "merge='max'"),
        ("tsv_merge", {"rank_fraction": 2}, [1.0], "rank_fraction=2"),
        ("tsv_merge", {"polar": "qr"}, [1.0], "polar='qr'"),
        ("tsv_compress", {"rank_fraction": -0.1}, [1.0], "rank_fraction=-0.1"),
        ("weight_average", {}, [], "method.alphas is empty"),
        ("weight_average", {}, [0.5, 0.5], "same alpha twice"),
        ("weight_average", {}, [-1.0], "-1.0; every alpha is a number above zero"),
    ],
)
def test_knobs_are_checked_without_any_checkpoint(name, knobs, alphas, message):
    serve = partial(getattr(methods, name), **knobs)
    bad = Method(name=name, label=name, alphas=alphas, knobs=knobs, serve=serve)
    with pytest.raises(ValueError, match=message):
        bad.check()
