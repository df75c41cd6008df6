"""Unseen tasks and corrupted images are tested by what was merged without them."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from made_up.small_suite import CLASSES, DIM, SmallSuite
from made_up.tasks import task

from tsv_bench import methods
from tsv_bench.benchmark.beyond import corrupted
from tsv_bench.benchmark.beyond.generalize import generalize
from tsv_bench.benchmark.beyond.records import Corrupted
from tsv_bench.benchmark.beyond.unseen import check_shared, check_unseen
from tsv_bench.benchmark.evaluate import Method, evaluate_method
from tsv_bench.benchmark.evaluator import Evaluator, SeveralDevices
from tsv_bench.benchmark.given.image_bench import ImageBench
from tsv_bench.benchmark.route import route_images
from tsv_bench.checkpoints.checkpoint import Checkpoint
from tsv_bench.data import Split
from tsv_bench.data.corruptions.corrupted import Corruptions, corrupt, in_parts
from tsv_bench.methods.needs import Needs
from tsv_bench.methods.served import served_by

MERGED = {name: task(name) for name in "ab"}
UNSEEN = {"new": task("new", label="New task"), "newer": task("newer")}
OWN = {"val": {"a": 0.5, "b": 0.5}, "test": {"a": 0.5, "b": 0.5, "new": 0.5, "newer": 0.25}}
FOG = Corruptions(["fog", "contrast"], 4)
ALPHA = 0.7


def method(serve=methods.weight_average, name="weight_average"):
    return Method(name=name, label=name, alphas=[ALPHA], knobs={}, serve=serve)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    suite = SmallSuite(tmp_path_factory.mktemp("suite"), images=7)
    drawn = torch.Generator().manual_seed(4)
    first = suite.splits["a"]
    for side, name in enumerate(UNSEEN, start=2):
        suite.heads[name] = torch.randn(CLASSES, DIM, generator=drawn)
        suite.splits[name] = Split(first.images.flip(side), first.labels.flip(0))
    suite.evaluator = Evaluator(suite.backbone, suite.heads, "cpu")
    return suite


def load(suite, of, split):
    assert split == "test", "nothing is chosen on other images"
    return suite.splits[of.name]


def outcome_of(suite, serve=methods.weight_average, **changes):
    found = evaluate_method(
        MERGED, method(serve), suite.vectors, suite.evaluator, partial(load, suite), OWN
    )
    return replace(found, **changes)


def generalized(suite, outcome, unseen=(), corruptions=None, normalizer=OWN["test"], own=None):
    return generalize(
        outcome, suite.evaluator, partial(load, suite), tasks=MERGED,
        unseen={name: UNSEEN[name] for name in unseen}, corruptions=corruptions,
        checkpoints={
            t: Checkpoint(path=None, sha256=t, generation="made up", scores=None) for t in UNSEEN
        },
        normalizer=normalizer, own=own,
    )  # fmt: skip


@contextmanager
def told(suite, name):
    """Yield a list of (alpha, splits in turn) that the evaluator is asked for meanwhile."""
    work, asked = getattr(suite.evaluator, name), []

    def spy(served, alpha, splits, *more):
        shown = []
        asked.append((alpha, shown))
        if not isinstance(splits, dict):  # one by one, as they come
            splits = map(lambda pair: shown.append(pair) or pair, splits)
        return work(served, alpha, splits, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite.evaluator, name, spy)
        yield asked


def test_unseen_tasks_are_served_what_all_are(suite):
    outcome = outcome_of(suite)
    with told(suite, "correct") as asked:
        found = generalized(suite, outcome, UNSEEN)
    assert [alpha for alpha, _ in asked] == [ALPHA]
    mean = {name: sum(v[name] for v in suite.vectors.values()) / 2 for name in suite.vectors["a"]}
    splits = {name: suite.splits[name] for name in UNSEEN}
    expected = suite.evaluator.correct(dict.fromkeys(UNSEEN, mean), ALPHA, splits)
    assert list(found.bits) == list(UNSEEN)
    for name, hits in expected.items():
        assert np.array_equal(found.bits[name], hits)
    new, newer = (found.unseen.test[name].accuracy for name in UNSEEN)
    assert new == expected["new"].mean() and newer == expected["newer"].mean() > 0
    assert found.unseen.absolute == (new + newer) / 2
    assert found.unseen.normalized == (new / 0.5 + newer / 0.25) / 2
    assert found.unseen.normalizer == {"new": 0.5, "newer": 0.25}
    assert found.unseen.tasks == {"new": "New task", "newer": "Newer"}
    assert found.unseen.checkpoints["new"] == {"sha256": "new", "generation": "made up"}
    assert outcome.seconds["unseen"] >= 0 and found.corrupted is None


def test_unseen_tasks_of_individual_models_are_served_their_own(suite):
    own = {"new": suite.vectors["b"]}
    served = served_by(methods.individual, own, "individual")
    found = generalized(
        suite, outcome_of(suite, methods.individual), ["new"], normalizer=None, own=served
    )
    expected = suite.evaluator.correct(own, ALPHA, {"new": suite.splits["new"]})["new"]
    assert np.array_equal(found.bits["new"], expected)
    assert found.unseen.normalized == 1
    assert found.unseen.normalizer == {"new": expected.mean()}


def corrupted_split(suite, name, kind):
    split = suite.splits[name]
    pixels = corrupt(split.images.numpy(), kind, 4)
    return Split(torch.from_numpy(pixels), split.labels)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("serve", [methods.weight_average, methods.individual])
def test_corrupted_images_are_classified_by_what_is_served(suite, serve, devices, monkeypatch):
    # Parts of images, whose last one is shorter, are put together again.
    monkeypatch.setattr(corrupted, "in_parts", partial(in_parts, part=3))
    outcome = outcome_of(suite, serve)
    if devices == 2:
        several = SeveralDevices(suite.backbone, suite.heads, ["cpu"] * 2)
        monkeypatch.setattr(suite, "evaluator", several)
    with told(suite, "correct_in_turn") as asked:
        found = generalized(suite, outcome, corruptions=FOG)
    [(alpha, shown)] = asked
    assert alpha == ALPHA
    for name in MERGED:  # a small network answers alike, whatever it is shown
        images = torch.cat([split.images for task, split in shown if task == name])
        both = [corrupted_split(suite, name, kind).images for kind in FOG.names]
        assert torch.equal(images, torch.cat(both))
    assert list(found.corrupted.test) == ["fog", "contrast"] and found.corrupted.severity == 4
    for kind in FOG.names:
        splits = {name: corrupted_split(suite, name, kind) for name in MERGED}
        expected = suite.evaluator.correct(outcome.served, ALPHA, splits)
        for name, hits in expected.items():
            assert np.array_equal(found.bits[Corrupted.key(kind, name)], hits)
            assert found.corrupted.test[kind][name].correct == hits.sum()
    assert len(found.bits) == 4 and found.unseen is None
    assert found.corrupted.absolute == pytest.approx(np.mean([*found.bits.values()]), abs=1e-15)


def test_corrupted_images_go_through_a_router_too(suite):
    knobs = {"mixture": False, "router_epochs": 2, "router_held_out": 0.5}
    bench = ImageBench(
        suite.backbone, suite.heads, {t: suite.splits[t].images for t in MERGED}, None,
        device="cpu", seed=0,
    )  # fmt: skip
    serve = partial(methods.twin_merging, bench=bench, **knobs)
    served = served_by(serve, suite.vectors, "twin").in_memory()
    found = generalized(suite, outcome_of(suite, served=served, alpha=1.0), corruptions=FOG)
    splits = {name: corrupted_split(suite, name, "fog") for name in MERGED}
    for name, hits in route_images(suite.evaluator, served, splits).correct.items():
        assert np.array_equal(found.bits[Corrupted.key("fog", name)], hits)
    with pytest.raises(ValueError, match="which sends images to experts of the merged tasks"):
        check_shared(served, UNSEEN)
    # What a method that sees data serves is not known before.
    needs = Needs(arguments=("bench",), images=None)
    check_unseen(replace(method(serve), needs=needs), MERGED, UNSEEN)


@pytest.mark.parametrize("serve", [methods.individual, methods.tsv_compress, methods.emr])
def test_a_method_without_one_model_for_all_is_refused_before_any_work(serve):
    refused = method(serve, "mine")
    said = r"unseen=\[new,newer\] with method=mine, which has a model for each of the merged tasks"
    with pytest.raises(ValueError, match=said):
        check_unseen(refused, MERGED, UNSEEN)
    check_unseen(refused, MERGED, {})
    check_unseen(method(), MERGED, UNSEEN)
    check_unseen(replace(refused, name="individual", alphas=[1.0]), MERGED, UNSEEN)


def test_a_method_that_sees_data_is_refused_when_it_has_served(suite):
    served = served_by(methods.individual, suite.vectors, "x")
    with pytest.raises(ValueError, match="has none for a task that it did not merge"):
        check_shared(served, UNSEEN)
    check_shared(served, {})
    check_shared(served_by(methods.weight_average, suite.vectors, "x"), UNSEEN)
