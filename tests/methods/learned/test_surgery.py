"""Theorems of Representation Surgery, on a small network in float64."""

import pytest
import torch
from made_up.pixel_bench import PixelBench
from made_up.vectors import SHAPES, close, random_vectors

from tsv_bench import methods
from tsv_bench.methods.forms import Adapted
from tsv_bench.methods.learned.learning import Batches, generator
from tsv_bench.methods.served import form_by_trial, served_by

TASKS = ["task0", "task1", "task2"]


def example(num_tasks=3, **knobs):
    vectors, bench = random_vectors(num_tasks), PixelBench(SHAPES, TASKS)

    def serve(given):
        return methods.surgery(given, bench=bench, **knobs)

    return vectors, bench, served_by(serve, vectors, "surgery")


def features(bench, vector, task):
    weights = {name: p + vector[name] for name, p in bench.pretrained.items()}
    return bench.features(weights, bench.images(task))


def loss(vectors, bench, served, task):
    found = served.adapter(task)(features(bench, served[task], task))
    return (found - features(bench, vectors[task], task)).abs().mean()


def test_without_steps_an_adapter_changes_nothing():
    vectors, bench, served = example(steps=0)
    z = features(bench, served["task1"], "task1")
    adapter = served.adapter("task1")
    assert torch.equal(adapter(z), z) and not adapter.up.any()
    assert adapter.down.shape == (16, bench.dim) and adapter.up.shape == (bench.dim, 16)
    bound = bench.dim**-0.5
    assert 0.9 * bound < adapter.down.abs().max() <= bound


def test_the_merged_vector_is_the_bases():
    vectors, _, served = example(steps=2, base="tsv_merge", base_alpha=0.7)
    merged = methods.tsv_merge(vectors)["task0"]
    for name in SHAPES:
        torch.testing.assert_close(served["task1"][name], 0.7 * merged[name], **close)


def test_steps_are_those_of_the_definition():
    """Image by image, with an optimizer typed again."""
    vectors, bench, served = example(steps=3, learning_rate=0.01, batch_size=5, rank=4)
    for task in TASKS:
        drawn = torch.rand(
            4, bench.dim, dtype=torch.float64, generator=generator(bench, task, "down")
        )
        weights = [(2 * drawn - 1) / bench.dim**0.5, torch.zeros(bench.dim, 4).double()]
        means, squares, batches = [0, 0], [0, 0], Batches(bench, task, 5)
        merged = {name: 0.3 * sum(v[name] for v in vectors.values()) for name in SHAPES}
        z, wanted = features(bench, merged, task), features(bench, vectors[task], task)
        for step in (1, 2, 3):
            down, up = (w.requires_grad_(True) for w in weights)
            rows = batches.rows().tolist()
            terms = [z[i] - up @ (down @ z[i]).clamp(min=0) - wanted[i] for i in rows]
            gradients = torch.autograd.grad(torch.stack(terms).abs().mean(), [down, up])
            for n, g in enumerate(gradients):
                means[n] = 0.9 * means[n] + 0.1 * g
                squares[n] = 0.999 * squares[n] + 0.001 * g**2
                length = (squares[n] / (1 - 0.999**step)) ** 0.5 + 1e-8
                weights[n] = weights[n].detach() - 0.01 * means[n] / (1 - 0.9**step) / length
        torch.testing.assert_close(served.adapter(task).down, weights[0], **close)
        torch.testing.assert_close(served.adapter(task).up, weights[1], **close)


def test_features_come_nearer_to_those_of_the_tasks_own_model():
    vectors, bench, served = example(steps=80, learning_rate=0.03)
    for task in TASKS:
        start = (features(bench, served[task], task) - features(bench, vectors[task], task)).abs()
        assert loss(vectors, bench, served, task) < 0.8 * start.mean()


def test_where_the_merged_model_is_the_tasks_own_nothing_is_learned():
    """The loss is 0, and so is the gradient of an absolute value there."""
    vectors, bench, served = example(num_tasks=1, steps=5, base_alpha=1)
    assert loss(vectors, bench, served, "task0") == 0
    assert not served.adapter("task0").up.any()


def test_other_tasks_do_not_matter():
    """A task's adapter is of the merged model and its own images."""
    vectors, bench, served = example(steps=5, base="magmax")
    flipped = served_by(
        lambda given: methods.surgery(given, bench=bench, steps=5, base="magmax"),
        dict(reversed(vectors.items())), "surgery",
    )  # fmt: skip
    assert torch.equal(served.adapter("task1").up, flipped.adapter("task1").up)
    assert not torch.equal(served.adapter("task1").up, served.adapter("task2").up)


def test_it_is_learned_once_when_the_first_adapter_is_wanted():
    vectors, bench, served = example(steps=5)
    served["task1"]["proj"]
    assert isinstance(served, Adapted) and bench.forward_passes == 0
    adapter = served.adapter("task0")
    passes = 2 * len(TASKS) * len(bench.images("task0"))
    assert bench.forward_passes == passes and bench.backward_passes == 0
    assert served.adapter("task0") is adapter
    there = served.in_memory()
    assert there.adapter("task0") is adapter and bench.forward_passes == passes


def test_on_ada_merging_the_base_learns_on_the_same_bench():
    knobs = {"base": "ada_merging", "base_knobs": {"steps": 2}, "base_alpha": 1, "steps": 2}
    vectors, bench, served = example(**knobs)
    merged = methods.ada_merging(vectors, bench=bench, steps=2)["task0"]["proj"]
    assert bench.backward_passes == 2 * 16 * len(TASKS)
    served = served.in_memory()
    assert torch.equal(served["task0"]["proj"], merged)
    assert bench.backward_passes == 2 * 2 * 16 * len(TASKS)  # once, for base and adapters
    assert served.adapter("task0").up.any()


def test_a_loss_that_is_not_finite_ends_it_for_this_task(caplog):
    vectors, bench = random_vectors(2), PixelBench(SHAPES, TASKS)
    found = bench.features

    def broken(weights, images):
        first = torch.equal(images, bench.images("task0"))
        return found(weights, images) * (torch.inf if first else 1)

    bench.features = broken
    served = served_by(lambda v: methods.surgery(v, bench=bench, steps=5), vectors, "surgery")
    assert not served.adapter("task0").up.any() and served.adapter("task1").up.any()
    [said] = caplog.messages
    assert "surgery, task0: the loss or its gradient is not finite in step 1" in said


def test_the_form_is_told_by_a_trial_of_which_nothing_is_learned():
    bench = PixelBench(SHAPES, TASKS)
    for tasks in (TASKS, ["task0"]):
        assert form_by_trial(lambda v: methods.surgery(v, bench=bench), tasks) is Adapted
    assert bench.forward_passes == 0


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"base": "regmean"}, "base=regmean needs inputs, which is data and no knob"),
        ({"base": "ada_merging", "base_knobs": {"by": "no"}}, "by='no' is not"),
        ({"base": "ada_merging", "base_knobs": {"bench": 1}}, "base_knobs has 'bench', which"),
        ({"base_alpha": -1}, "base_alpha=-1 is not a number from 0 on"),
        ({"rank": 0}, "rank=0 is not a whole number from 1 on"),
        ({"learning_rate": 0}, "learning_rate=0 is not a positive number"),
        ({"steps": -1}, "steps=-1 is not a whole number from 0 on"),
        ({"batch_size": 0}, "batch_size=0 is not a whole number from 1 on"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        methods.surgery({}, bench=None, **knobs)


def test_a_base_that_serves_each_its_own_is_refused():
    with pytest.raises(ValueError, match="base=individual serves each task its own vector"):
        example(base="individual")
