"""A method on a suite, in process: two made-up tasks, a tower of two layers, files on disk."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from made_up.tasks import NUM_IMAGES, backbone, task, tints
from safetensors.torch import load_file, save_file

from tsv_bench import methods
from tsv_bench.benchmark import evaluator
from tsv_bench.benchmark.evaluate import Method, evaluate_method, left, open_task_vectors
from tsv_bench.benchmark.evaluator import Evaluator
from tsv_bench.benchmark.validate import validate
from tsv_bench.checkpoints.checkpoint import Checkpoint, sha256
from tsv_bench.data import Split
from tsv_bench.methods.method import Choice
from tsv_bench.models import zero_shot_head, zero_shot_heads
from tsv_bench.models.accuracy import correct_images

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
    """Returns splits and records which ones were asked for."""

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


OWN = {"val": {"tints": 0.5, "moods": 0.25}, "test": {"tints": 0.75, "moods": 0.5}}


def evaluated(
    checkpoints, *args, load=None, normalizer=OWN, patience=None, validates=False, **kwargs
):
    vectors = open_task_vectors(backbone(), checkpoints)
    evaluator = Evaluator(backbone(), zero_shot_heads(backbone(), TASKS), "cpu")
    return evaluate_method(
        TASKS, method(*args, **kwargs), vectors, evaluator, load or Loader(), normalizer, patience,
        validates=validates,
    )  # fmt: skip


def test_individual_models_are_normalized_by_themselves_and_evaluated_on_validation(checkpoints):
    load = Loader()
    outcome = evaluated(checkpoints, "individual", load=load, normalizer=None)
    assert outcome.normalized == pytest.approx(1.0, abs=1e-12)  # a mean of ones
    assert {split for _, split in load.asked} == {"val", "test"}
    for name, made_up in TASKS.items():
        state = load_file(checkpoints[name].path)
        tower = copy.deepcopy(backbone().visual)
        tower.load_state_dict(state)
        head = zero_shot_head(backbone(), made_up)
        for split, found in (("val", outcome.val), ("test", outcome.test)):
            expected = correct_images(tower, head, Loader()(made_up, split), "cpu")
            np.testing.assert_array_equal(found[name], expected)
        assert outcome.normalizer[name] == outcome.test[name].mean()


def test_zero_shot_is_the_pretrained_model(checkpoints):
    outcome = evaluated(checkpoints, "zero_shot")
    for name, made_up in TASKS.items():
        head, split = zero_shot_head(backbone(), made_up), Loader()(made_up, "test")
        expected = correct_images(backbone().visual, head, split, "cpu")
        np.testing.assert_array_equal(outcome.test[name], expected)


def test_absolute_and_normalized_are_means_over_tasks_in_fractions(checkpoints):
    outcome = evaluated(checkpoints, "weight_average")
    accuracy = {name: hits.mean() for name, hits in outcome.test.items()}
    ratios = [accuracy[name] / OWN["test"][name] for name in TASKS]
    assert outcome.normalizer == OWN["test"]
    assert list(outcome.test) == list(TASKS)
    assert outcome.absolute == pytest.approx(np.mean(list(accuracy.values())))
    assert outcome.normalized == pytest.approx(np.mean(ratios))


def test_a_fixed_alpha_is_validated_where_that_is_asked(checkpoints):
    """And afterwards: as where it was searched."""
    searched = evaluated(checkpoints, "task_arithmetic", alphas=[0.3, 0.6])
    alpha, rule = searched.alpha, method("task_arithmetic", [searched.alpha])
    fixed = evaluated(checkpoints, "task_arithmetic", alphas=[alpha], validates=True)
    vectors = open_task_vectors(backbone(), checkpoints)
    network = Evaluator(backbone(), zero_shot_heads(backbone(), TASKS), "cpu")
    hits, normalized = validate(TASKS, rule, vectors, network, Loader(), OWN, None, alpha, {})
    assert fixed.curve == {} and fixed.normalized_val == searched.curve[alpha] == normalized
    for name in TASKS:
        np.testing.assert_array_equal(fixed.val[name], searched.val[name])
        np.testing.assert_array_equal(fixed.val[name], hits[name])
        np.testing.assert_array_equal(fixed.test[name], searched.test[name])


def test_what_was_chosen_before_is_validated_on_images_that_were_not_seen(checkpoints):
    vectors = open_task_vectors(backbone(), checkpoints)
    network = Evaluator(backbone(), zero_shot_heads(backbone(), TASKS), "cpu")

    def validated(method, seen_rows=None, knobs=()):
        about = (network, Loader(), None, seen_rows, 1.0, dict(knobs))
        return validate(TASKS, method, vectors, *about)

    fixed = method("ties")
    hits, normalized = validated(fixed)
    assert normalized == 1.0  # by nothing but themselves
    some, _ = validated(fixed, {"tints": np.arange(3)})
    np.testing.assert_array_equal(some["tints"], hits["tints"][3:])
    np.testing.assert_array_equal(some["moods"], hits["moods"])
    serve = partial(methods.ties, merge="mean")
    choice = Choice(knob="density", by="suite", candidates=[0.1, 0.5], default=0.1, serve=serve)
    opened = replace(fixed, knobs={"density": None}, choice=choice, serve=serve)
    np.testing.assert_equal(validated(opened, knobs=dict.fromkeys(TASKS, 0.5))[0], hits)


def test_no_images_left_to_validate_on_is_a_message():
    assert left({"tints": np.ones(2, bool)}).keys() == {"tints"}
    with pytest.raises(ValueError, match="sees all validation images of moods, which leaves none"):
        left({"tints": np.ones(2, bool), "moods": np.ones(0, bool)})


def test_a_fixed_alpha_costs_no_validation(checkpoints):
    load = Loader()
    outcome = evaluated(checkpoints, "task_arithmetic", alphas=[0.3], load=load)
    assert {split for _, split in load.asked} == {"test"}
    assert (outcome.alpha, outcome.curve, outcome.val) == (0.3, {}, {})


def test_every_alpha_is_evaluated_on_validation_and_the_first_best_on_test(
    checkpoints, monkeypatch
):
    calls = []
    # Correct images of each task. The best score occurs twice: the smaller alpha wins.
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
    share = 15 / NUM_IMAGES["val"]
    assert outcome.curve[1.0] == pytest.approx((share / 0.5 + share / 0.25) / 2)
    assert {name: hits.sum() for name, hits in outcome.val.items()} == dict.fromkeys(TASKS, 15)


def test_patience_ends_the_search(checkpoints):
    outcome = evaluated(checkpoints, "task_arithmetic", alphas=[1.0, 50.0, 99.0], patience=1)
    full = evaluated(checkpoints, "task_arithmetic", alphas=[1.0, 50.0, 99.0])
    assert outcome.alpha == full.alpha == 1.0
    assert list(outcome.curve) == [1.0, 50.0] and list(full.curve) == [1.0, 50.0, 99.0]


def test_a_merged_vector_is_loaded_once_for_all_tasks(checkpoints, monkeypatch):
    applied = []
    apply = evaluator.task_vector.apply
    monkeypatch.setattr(
        evaluator.task_vector, "apply", lambda *args: applied.append(args[2]) or apply(*args)
    )
    evaluated(checkpoints, "ties", alphas=[0.5, 1.0])
    assert applied[:2] == [0.5, 1.0] and len(applied) == 3  # and once on test


def test_stages_are_timed(checkpoints):
    outcome = evaluated(checkpoints, "weight_average")
    assert {"data", "merge", "alpha", "test"} == set(outcome.seconds)
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
        {f"other.{name}": param for name, param in moved(0).items()},
        "different parameters than the backbone, under no known naming",
    ),
    "with NaN": (nan_somewhere(), "holds NaN or infinity in '3.weight'.*delete it"),
    "with infinity": ({**moved(0), "1.bias": torch.full((16,), -torch.inf)}, "in '1.bias'"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_checkpoint_that_cannot_be_used_is_named_before_any_evaluation(
    kind, checkpoints, tmp_path, monkeypatch
):
    state, message = FOREIGN[kind]
    # The last one is damaged: the first must not be evaluated before the last is checked.
    checkpoints["moods"] = write(tmp_path / "moods.safetensors", state)
    monkeypatch.setattr(Evaluator, "correct", lambda *args: pytest.fail("evaluated"))
    with pytest.raises(ValueError, match=f"the checkpoint of moods at .*moods.safe.*{message}"):
        evaluated(checkpoints, "weight_average")


def test_checkpoints_that_changed_nothing_are_refused(checkpoints, tmp_path, caplog):
    state = dict(backbone().pretrained)
    checkpoints["moods"] = write(tmp_path / "moods.safetensors", state)
    open_task_vectors(backbone(), checkpoints)
    assert "moods equals the pretrained checkpoint: it changes nothing." in caplog.text
    same = {task: write(tmp_path / f"{task}.safetensors", state) for task in checkpoints}
    with pytest.raises(ValueError, match="every fine-tuned checkpoint equals the pretrained "):
        open_task_vectors(backbone(), same)


def test_a_checkpoint_in_the_papers_layout_is_the_same(checkpoints, tmp_path):
    before = evaluated(checkpoints, "weight_average")
    state = {f"model.visual.{name}": param for name, param in moved(1).items()}
    path = tmp_path / "moods.pt"
    torch.save({**state, "model.logit_scale": torch.tensor(1.0)}, path)
    checkpoints["moods"] = replace(checkpoints["moods"], path=path)
    after = evaluated(checkpoints, "weight_average")
    assert after.absolute == before.absolute
    for name in TASKS:
        np.testing.assert_array_equal(after.test[name], before.test[name])


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
