"""Theorems of AdaMerging, on a small network in float64."""

import pytest
import torch
from made_up.pixel_bench import PixelBench
from made_up.vectors import SHAPES, close, random_vectors, read

from tsv_bench import methods
from tsv_bench.methods.learned import ada_merging as module
from tsv_bench.methods.learned.ada_merging import Coefficients, TrimmedLayers, agreeing
from tsv_bench.methods.learned.learning import Batches
from tsv_bench.task_vectors.lazy import lazy_vectors

TASKS = ["task0", "task1", "task2"]


def example(density=None, **settings):
    vectors, bench = random_vectors(3), PixelBench(SHAPES, TASKS)
    deltas = TrimmedLayers(lazy_vectors(vectors.values()), density)
    made = Coefficients(bench, TASKS, deltas, **{"by": "layer", "clamp": True, **settings})
    return vectors, bench, made


def by_definition(bench, vectors, raw, clamp=True, batch_size=16):
    """One graph through the sum of all task vectors, as the authors' code has it."""
    used = raw.clamp(0, 1) if clamp else raw
    layers = list(SHAPES)
    groups = range(len(layers)) if raw.shape[1] > 1 else [0] * len(layers)
    weights = {
        name: bench.pretrained[name]
        + sum(used[t, group] * vectors[task][name] for t, task in enumerate(TASKS))
        for name, group in zip(layers, groups, strict=True)
    }
    loss = 0
    for task in TASKS:
        images = bench.images(task)[Batches(bench, task, batch_size).rows()]
        p = bench.logits(task, bench.features(weights, images)).softmax(dim=1)
        loss = loss + torch.special.entr(p).sum() / len(images)
    return loss


@pytest.mark.parametrize("by", ["layer", "task"])
@pytest.mark.parametrize("clamp", [True, False])
def test_streamed_gradient_is_that_of_autograd_through_the_sum(by, clamp):
    vectors, bench, made = example(by=by, start=0.3, clamp=clamp)
    # On both sides of the bounds: beyond them a clamped coefficient has no gradient.
    made.raw += torch.linspace(-0.5, 1, made.raw.numel(), dtype=torch.float64).view_as(made.raw)
    loss = made.gradient(16)()
    raw = made.raw.clone().requires_grad_(True)
    expected = by_definition(bench, vectors, raw, clamp)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), **close)
    torch.testing.assert_close(made.raw.grad, raw.grad, **close)
    assert made.raw.grad.any() and bool((made.raw.grad == 0).any()) >= clamp


@pytest.mark.parametrize("density", [None, 0.2])
def test_steps_are_adams_by_the_explicit_sum(density):
    vectors, bench, _ = example(start=0.3)
    knobs = {"steps": 3, "learning_rate": 0.05, "density": density}
    merged = methods.ada_merging(vectors, bench=bench, **knobs)["task1"]
    if density:
        flat = torch.stack([torch.cat([d.flatten() for d in v.values()]) for v in vectors.values()])
        kept = [f.where(f.abs() >= f.abs().sort(descending=True)[0][len(f) // 5], 0) for f in flat]
        elected = sum(kept).sign()
        kept = [f.where(f.sign() == elected, 0) for f in kept]
        sizes = [torch.Size(shape).numel() for shape in SHAPES.values()]
        vectors = {
            task: {
                name: part.reshape(shape)
                for (name, shape), part in zip(SHAPES.items(), f.split(sizes), strict=True)
            }
            for task, f in zip(TASKS, kept, strict=True)
        }
    raw = torch.full((3, len(SHAPES)), 0.3, dtype=torch.float64, requires_grad=True)
    batches, mean, square = {t: Batches(bench, t, 16) for t in TASKS}, 0, 0
    for step in (1, 2, 3):
        loss = 0
        weights = {
            name: bench.pretrained[name] + sum(raw[t, n] * vectors[task][name]
                                               for t, task in enumerate(TASKS))
            for n, name in enumerate(SHAPES)
        }  # fmt: skip
        for task in TASKS:
            images = bench.images(task)[batches[task].rows()]
            p = bench.logits(task, bench.features(weights, images)).softmax(dim=1)
            loss = loss + torch.special.entr(p).sum() / len(images)
        [gradient] = torch.autograd.grad(loss, [raw])
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        with torch.no_grad():
            raw -= 0.05 * mean / (1 - 0.9**step) / ((square / (1 - 0.999**step)) ** 0.5 + 1e-8)
    for n, name in enumerate(SHAPES):
        expected = sum(raw[t, n].detach() * vectors[task][name] for t, task in enumerate(TASKS))
        torch.testing.assert_close(merged[name], expected, **close)


def test_without_steps_it_is_task_arithmetic():
    vectors, bench, _ = example(start=0.3)
    merged = read(methods.ada_merging(vectors, bench=bench, steps=0, start=0.25))["task0"]
    expected = {n: 0.25 * d for n, d in methods.task_arithmetic(vectors)["task0"].items()}
    torch.testing.assert_close(merged, expected, **close)


def test_a_coefficient_of_a_task_is_that_of_all_its_layers_tied():
    """Its gradient is the sum of theirs, and one that serves says what all layers are times."""
    vectors, bench, of_layers = example(start=0.3)
    _, _, of_tasks = example(start=0.3, by="task")
    of_tasks._deltas = of_layers._deltas
    of_layers.gradient(16)()
    of_tasks.gradient(16)()
    summed = of_layers.raw.grad.sum(dim=1, keepdim=True)
    torch.testing.assert_close(of_tasks.raw.grad, summed, **close)
    merged = methods.ada_merging(vectors, bench=bench, by="task", steps=20)["task0"]
    columns = torch.stack([v["proj"].flatten() for v in vectors.values()], dim=1)
    found = torch.linalg.lstsq(columns, merged["proj"].flatten()).solution
    assert (found - 0.3).abs().min() > 1e-3
    for name in SHAPES:
        expected = sum(c * v[name] for c, v in zip(found, vectors.values(), strict=True))
        torch.testing.assert_close(merged[name], expected, **close)


def test_entropy_falls_on_all_images():
    vectors, bench, _ = example(start=0.3)

    def loss(steps):
        served = methods.ada_merging(vectors, bench=bench, steps=steps, learning_rate=0.03)
        weights = {n: p + served["task0"][n] for n, p in bench.pretrained.items()}
        logits = [bench.logits(t, bench.features(weights, bench.images(t))) for t in TASKS]
        return sum(module.entropy(of_task) for of_task in logits)

    before, some, more = loss(0), loss(10), loss(30)
    assert more < some < before


def test_the_seed_and_the_images_alone_decide():
    vectors = random_vectors(3)

    def merged(seed=0, **knobs):
        bench = PixelBench(SHAPES, TASKS, seed=seed)
        return methods.ada_merging(vectors, bench=bench, steps=5, **knobs)["task0"]["proj"]

    assert torch.equal(merged(), merged())
    assert not torch.equal(merged(), merged(seed=1))
    # All images are in every batch: no chance is left but the order in which they are summed.
    torch.testing.assert_close(merged(batch_size=24), merged(1, batch_size=99), **close)


def test_the_order_of_the_tasks_does_not_matter_to_the_last_bit():
    vectors, bench, _ = example(start=0.3)
    flipped = dict(reversed(vectors.items()))
    knobs = {"bench": bench, "steps": 5, "learning_rate": 0.1}
    merged, other = (read(methods.ada_merging(v, **knobs))["task1"] for v in (vectors, flipped))
    torch.testing.assert_close(other, merged, rtol=0, atol=0)


def test_learning_begins_with_the_first_layer_and_is_done_once():
    vectors, bench, _ = example(start=0.3)
    served = methods.ada_merging(vectors, bench=bench, steps=4, batch_size=8)
    assert bench.forward_passes == 0 and served["task0"] is served["task2"]
    first = served["task0"]["proj"]
    assert bench.forward_passes == bench.backward_passes == 4 * 8 * len(TASKS)
    assert torch.equal(served["task2"]["proj"], first)
    assert bench.forward_passes == 4 * 8 * len(TASKS)


@pytest.mark.parametrize("density", [None, 0.2])
def test_task_vectors_too_large_to_keep_are_read_again(density, monkeypatch):
    vectors, bench, _ = example(start=0.3)
    knobs = {"bench": bench, "steps": 3, "density": density}
    expected = read(methods.ada_merging(vectors, **knobs))
    monkeypatch.setattr(module, "KEPT", 3 * sum(d.numel() for d in vectors["task0"].values()) - 1)
    found = read(methods.ada_merging(vectors, **knobs))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_trimmed_vectors_sum_to_what_ties_merges():
    vectors = random_vectors(3)
    merged = methods.ties(vectors, density=0.3, merge="sum")["task0"]
    trimmed = TrimmedLayers(lazy_vectors(vectors.values()), 0.3)
    for name in SHAPES:
        torch.testing.assert_close(trimmed.of(name).sum(dim=0), merged[name], **close)
    signs = agreeing(torch.tensor([[3.0, -1.0, 0.5], [-2.0, -4.0, 0.1]]), [0.4, 0.4])
    assert signs.tolist() == [[3, -1, 0.5], [0, -4, 0]]


def test_a_clamped_coefficient_ends_within_its_bounds():
    vectors, bench, _ = example(start=0.3)
    fast = {"bench": bench, "steps": 20, "learning_rate": 0.2, "by": "task"}
    merged = methods.ada_merging(vectors, **fast)["task0"]["proj"]
    columns = torch.stack([v["proj"].flatten() for v in vectors.values()], dim=1)
    found = torch.linalg.lstsq(columns, merged.flatten()).solution
    assert found.min() > -1e-12 and found.max() < 1 + 1e-12
    free = methods.ada_merging(vectors, **fast, clamp=False)["task0"]["proj"]
    found = torch.linalg.lstsq(columns, free.flatten()).solution
    assert found.min() < 0 or found.max() > 1


def test_a_loss_that_is_not_finite_ends_it_at_what_was_learned_before(caplog):
    vectors, bench, _ = example(start=0.3)
    logits, calls = bench.logits, []

    def broken(task, features):
        calls.append(task)
        return logits(task, features) * (torch.nan if len(calls) > 3 * len(TASKS) else 1)

    two = methods.ada_merging(vectors, bench=bench, steps=2)["task0"]["proj"]
    bench.logits = broken
    found = methods.ada_merging(vectors, bench=bench, steps=9)["task0"]["proj"]
    assert torch.equal(found, two)
    [said] = caplog.messages
    assert "ada_merging: the loss or its gradient is not finite in step 4" in said


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"by": "block"}, "by='block' is not for what there is a coefficient"),
        ({"start": 1.5}, r"start=1.5 is not in \[0, 1\]"),
        ({"start": -1, "clamp": False}, "start=-1 is not a number from 0 on"),
        ({"learning_rate": 0}, "learning_rate=0 is not a positive number"),
        ({"steps": -1}, "steps=-1 is not a whole number from 0 on"),
        ({"batch_size": 0}, "batch_size=0 is not a whole number from 1 on"),
        ({"clamp": None}, "clamp=None is neither true nor false"),
        ({"density": 20}, r"density=20 is not in \(0, 1\]"),
    ],
)
@pytest.mark.usefixtures("without_shape_checks")
def test_knobs_out_of_range_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        methods.ada_merging({}, bench=None, **knobs)
