"""Theorems of Localize-and-Stitch, in float64, and its definition written out."""

from functools import partial

import pytest
import torch
from made_up.bench import MadeUpBench
from made_up.vectors import SHAPES, close, randn, random_vectors, read

from tsv_bench import methods
from tsv_bench.methods.forms import Shared
from tsv_bench.methods.served import served_by
from tsv_bench.task_vectors import lazy

TASKS = ("task0", "task1", "task2")
# Deltas here are a thousand times as large as those of fine-tuning, and so are the gradients.
QUICK = {"learning_rate": 1e3, "density": 0.05}


def flat(vector):
    return torch.cat([delta.flatten() for delta in vector.values()])


def stitched(vectors, masks):
    """The definition on whole vectors: entries over the number of masks that have them."""
    total = sum(flat(v) * m for v, m in zip(vectors, masks, strict=True))
    count = sum(m.long() for m in masks)
    return torch.where(count > 0, total / count, 0)


@pytest.mark.parametrize("density", [0.05, 0.3, 1])
def test_data_free_it_is_the_definition_on_the_largest_entries(density):
    vectors = random_vectors(3)
    merged = methods.localize_and_stitch(vectors, density=density, data_free=True)["task0"]
    masks = []
    for vector in vectors.values():
        magnitudes = flat(vector).abs()
        num_kept = -(-len(magnitudes) * density // 1)
        masks.append((magnitudes >= magnitudes.topk(int(num_kept)).values[-1]) & (magnitudes > 0))
    expected = stitched(vectors.values(), masks)
    torch.testing.assert_close(flat(merged), expected, **close)


def test_of_one_task_whole_it_is_the_task():
    vectors = random_vectors(1)
    found = methods.localize_and_stitch(vectors, density=1, data_free=True)
    torch.testing.assert_close(read(found), vectors, rtol=0, atol=0)


def test_masks_apart_make_the_sum_and_masks_at_one_place_the_mean():
    first, second = {"a": randn(4, 6)}, {"a": randn(4, 6)}
    upper = torch.arange(4)[:, None] < 2
    apart = {"x": {"a": first["a"] * upper}, "y": {"a": second["a"] * ~upper}}
    merged = methods.localize_and_stitch(apart, density=0.5, data_free=True)["x"]["a"]
    torch.testing.assert_close(merged, apart["x"]["a"] + apart["y"]["a"], rtol=0, atol=0)
    same = {"x": {"a": first["a"] * upper}, "y": {"a": second["a"] * upper}}
    merged = methods.localize_and_stitch(same, density=0.5, data_free=True)["x"]["a"]
    mean = (same["x"]["a"] + same["y"]["a"]) / 2
    torch.testing.assert_close(merged, mean, rtol=0, atol=1e-15)


def learned(bench, task, vector, density, learning_rate, epochs, batch_size, penalty, confidence):
    """The definition with gradients of the mask's logits by autograd: a flat mask."""
    size = flat(vector).abs()
    start = size >= size.topk(-(-len(size) * density // 1).__int__()).values[-1]
    logits = {}
    for name, part in zip(vector, start.split([d.numel() for d in vector.values()]), strict=True):
        inside = part.reshape(vector[name].shape)
        logits[name] = torch.where(inside, confidence, -confidence).double().requires_grad_()
    images, labels = bench.images(task), bench.labels(task)
    for _ in range(epochs):
        weights = {n: p + logits[n].sigmoid() * vector[n] for n, p in bench.pretrained.items()}
        loss = 0
        for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            found = bench.logits(task, bench.features(weights, x))
            loss = loss - found.log_softmax(dim=1)[torch.arange(len(y)), y].mean()
        size = sum(s.sigmoid().sum() for s in logits.values())
        (learning_rate * loss + penalty * size).backward()
        with torch.no_grad():
            for s in logits.values():
                s -= s.grad
                s.grad = None
    return flat(logits) > 0


@pytest.mark.parametrize("batch_size", [5, 128])
@pytest.mark.parametrize("penalty", [0, 30.0])
def test_learned_it_is_the_definition_by_autograd(batch_size, penalty):
    vectors, bench = random_vectors(3), MadeUpBench(TASKS)
    recipe = {"density": 0.05, "learning_rate": 1e3, "epochs": 4, "batch_size": batch_size,
              "penalty": penalty, "confidence": 2.0}  # fmt: skip
    merged = methods.localize_and_stitch(vectors, bench=bench, **recipe)["task0"]
    masks = [learned(bench, task, vector, **recipe) for task, vector in vectors.items()]
    sizes = [int(mask.sum()) for mask in masks]
    assert all(size != round(0.05 * len(masks[0])) for size in sizes)  # something was learned
    expected = stitched(vectors.values(), masks)
    torch.testing.assert_close(flat(merged), expected, **close)


def loss_of(bench, task, vector):
    weights = {name: p + vector[name] for name, p in bench.pretrained.items()}
    logits = bench.logits(task, bench.features(weights, bench.images(task)))
    return torch.nn.functional.cross_entropy(logits, bench.labels(task)).item()


def test_what_is_learned_lowers_the_loss_of_its_images():
    for task in TASKS:
        vector, bench = random_vectors(1), MadeUpBench(TASKS)
        vector = {task: vector["task0"]}
        start = methods.localize_and_stitch(vector, data_free=True, density=0.05)[task]
        found = methods.localize_and_stitch(vector, bench=bench, **QUICK)[task]
        assert loss_of(bench, task, dict(found)) < 0.9 * loss_of(bench, task, dict(start))


def test_without_a_step_it_is_the_data_free_form():
    vectors, bench = random_vectors(3), MadeUpBench(TASKS)
    found = methods.localize_and_stitch(vectors, bench=bench, density=0.05, epochs=0)
    expected = methods.localize_and_stitch(vectors, density=0.05, data_free=True)
    torch.testing.assert_close(read(found), read(expected), rtol=0, atol=0)


def test_a_large_penalty_takes_all_entries_away():
    vectors, bench = random_vectors(3), MadeUpBench(TASKS)
    knobs = {"density": 0.5, "learning_rate": 1e-9, "penalty": 1e4}
    served = methods.localize_and_stitch(vectors, bench=bench, **knobs)
    assert not any(delta.any() for delta in read(served)["task0"].values())


def test_it_learns_when_a_layer_is_wanted_and_once():
    vectors, bench = random_vectors(3), MadeUpBench(TASKS)
    images, read_images = bench.images, []
    bench.images = lambda task: read_images.append(task) or images(task)
    serve = partial(methods.localize_and_stitch, bench=bench, **QUICK)
    served = served_by(serve, vectors, "localize_and_stitch")
    assert type(served) is Shared and not read_images
    first = read(served)["task0"]
    assert set(read_images) == set(TASKS)
    num_read = len(read_images)
    again = read(served)["task0"]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert len(read_images) == num_read
    other = read(methods.localize_and_stitch(random_copy(vectors), bench=bench, **QUICK))["task0"]
    assert all(torch.equal(first[name], other[name]) for name in first)


def random_copy(vectors):
    return {task: {n: d.clone() for n, d in vector.items()} for task, vector in vectors.items()}


def test_a_layer_in_several_parts_has_its_own_rows_of_the_mask(monkeypatch):
    vectors, bench = random_vectors(3), MadeUpBench(TASKS)
    expected = read(methods.localize_and_stitch(vectors, bench=bench, **QUICK))
    monkeypatch.setattr(lazy, "BLOCK", 100)
    served = methods.localize_and_stitch(vectors, bench=bench, **QUICK)
    assert len(served["task0"].parts("in_proj_weight")) > 3
    torch.testing.assert_close(read(served), expected, rtol=0, atol=0)


def test_without_images_it_says_what_to_choose():
    with pytest.raises(ValueError, match="Give it a bench, or choose data_free=true"):
        methods.localize_and_stitch(random_vectors(2))


def test_images_of_a_task_that_are_missing_are_named():
    served = methods.localize_and_stitch(random_vectors(2), bench=MadeUpBench(["task0"]))
    with pytest.raises(ValueError, match="no images of task1, but of task0"):
        served["task0"]["proj"]


def test_the_layers_are_those_of_the_bench():
    assert set(SHAPES) == set(MadeUpBench(TASKS).pretrained)
