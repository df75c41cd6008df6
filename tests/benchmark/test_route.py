"""Images go to experts as the router says: the same as each image by itself, by hand."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_up.small_suite import TASKS, SmallSuite

from tsv_bench import methods
from tsv_bench.benchmark.evaluator import Evaluator, SeveralDevices
from tsv_bench.benchmark.route import Routes, route_images, router_scores
from tsv_bench.methods.forms import Routed
from tsv_bench.methods.served import served_by
from tsv_bench.task_vectors.task_vector import apply

KNOBS = {
    "free_merging": {"density": 0.3, "router_epochs": 2, "router_held_out": 0.5},
    "twin_merging": {"router_epochs": 2, "router_held_out": 0.5},
    "twin_hard": {"mixture": False, "router_epochs": 2, "router_reads": "zero_shot"},
    "we_moe": {"steps": 2, "batch_size": 2, "learning_rate": 0.05},
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return SmallSuite(tmp_path_factory.mktemp("route"), images=9)


def routed(suite, name):
    method = methods.twin_merging if name == "twin_hard" else getattr(methods, name)
    bench = suite.bench
    served = served_by(partial(method, bench=bench, **KNOBS[name]), suite.vectors, name)
    return served.in_memory(), bench


def by_hand(served, bench, task, image):
    """Class and chosen task of one image, with weights made for it alone."""
    router, shared = served.router, dict(served.routing.shared)
    features = None
    if router.reads:
        read = shared if router.reads == "shared" else {n: 0 * d for n, d in shared.items()}
        features = bench.features(apply(bench.pretrained, read, 1.0), image)
    gates = router.gates(features)
    if router.experts is None:
        chosen = gates.argmax().item()
        found = bench.features(apply(bench.pretrained, served[TASKS[chosen]], 1.0), image)
    elif isinstance(gates, torch.Tensor):
        chosen, mixed = gates.argmax().item(), dict(shared)
        for name, (up, down) in router.experts.factors.items():
            terms = zip(gates[0], up, down, strict=True)
            mixed[name] = shared[name] + sum(g * u @ d for g, u, d in terms)
        found = bench.features(apply(bench.pretrained, mixed, 1.0), image)
    else:
        seen = {}

        def linear(name, x, weight, bias):
            g = gates(name, x)[0] if name in router.experts.deltas else []
            seen[name] = g
            for of_task, delta in zip(g, router.experts.deltas.get(name, ()), strict=True):
                weight = weight + of_task * delta
            for of_task, delta in zip(g, router.experts.biases.get(name, ()), strict=True):
                bias = bias + of_task * delta
            return F.linear(x, weight, bias)

        found = bench.features(apply(bench.pretrained, shared, 1.0), image, linear)
        chosen = torch.stack([g for g in seen.values() if len(g)]).mean(dim=0).argmax().item()
    return bench.logits(task, found).argmax().item(), TASKS[chosen]


@pytest.mark.parametrize("name", KNOBS)
@torch.no_grad()
def test_images_are_classified_as_each_by_itself(suite, name):
    with torch.enable_grad():
        served, bench = routed(suite, name)
    assert isinstance(served, Routed)
    done = []
    evaluator = Evaluator(suite.backbone, suite.heads, "cpu", batch_size=4)
    routes = route_images(evaluator, served, suite.splits, lambda: done.append(1))
    several = SeveralDevices(suite.backbone, suite.heads, ["cpu"] * 2, batch_size=4)
    spread = route_images(several, served, suite.splits)
    alone = Evaluator(suite.backbone, suite.heads, "cpu").correct(
        {task: dict(served[task]) for task in TASKS}, 1.0, suite.splits
    )
    for task, split in suite.splits.items():
        pairs = [by_hand(served, bench, task, image[None]) for image in split.images]
        hits = [c == label for (c, _), label in zip(pairs, split.labels.tolist(), strict=True)]
        assert routes.correct[task].tolist() == hits
        assert routes.found[task].tolist() == [chosen == task for _, chosen in pairs]
        assert np.array_equal(routes.oracle[task], alone[task])
        assert np.array_equal(spread.correct[task], routes.correct[task])
        assert np.array_equal(spread.oracle[task], routes.oracle[task])
    assert len(done) == len(TASKS)
    scores = router_scores(routes)
    both = routes.correct["a"] & routes.found["a"]
    assert scores.head_found["a"].correct == both.sum()


def test_an_image_of_another_task_than_found_has_no_right_class():
    correct, found = np.array([True, True, False]), np.array([True, False, True])
    scores = router_scores(Routes({"a": correct}, {"a": found}, {"a": correct}))
    kinds = (scores.found, scores.oracle, scores.head_found)
    assert [kind["a"].correct for kind in kinds] == [2, 2, 1]


def test_the_form_says_what_is_stored_and_learns_once(suite):
    bench = suite.bench
    lazy = served_by(
        partial(methods.twin_merging, bench=bench, router_epochs=1), suite.vectors, "twin"
    )
    assert bench.forward_passes == 0
    there = lazy.in_memory()
    passes = bench.forward_passes
    assert passes == 2 * 9 and there.router is there.router and bench.forward_passes == passes
    assert bench.details["router"]["held_out"] == {"a": 2, "b": 2}
    dense = sum(delta.numel() for delta in suite.vectors["a"].values() if delta.any())
    sides = [(96, 32), (32, 32), (128, 32), (32, 128)]
    experts = 2 * 2 * sum((m + n) * int(0.1 * 32) for m, n in sides)
    router = (24 + 1) * 512 + (512 + 1) * 256 + (256 + 1) * 2
    assert there.stored_bytes() == 4 * (dense + experts + router)


def test_one_task_needs_no_choice_and_says_so(suite, caplog):
    vectors = {"a": suite.vectors["a"]}
    served = served_by(
        partial(methods.free_merging, bench=suite.bench, router_epochs=1), vectors, "free"
    ).in_memory()
    evaluator = Evaluator(suite.backbone, suite.heads, "cpu")
    routes = route_images(evaluator, served, {"a": suite.splits["a"]})
    assert caplog.messages == ["free has one task, a: its router chooses nothing."]
    assert routes.found["a"].all() and np.array_equal(routes.correct["a"], routes.oracle["a"])
