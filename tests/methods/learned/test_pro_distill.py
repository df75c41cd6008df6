"""ProDistill: blocks are distilled in turn, from each task's own network on its own images."""

import pytest
import torch
from made_up.small_suite import TASKS, SmallSuite

from tsv_bench import methods
from tsv_bench.benchmark.given.image_bench import ImageBench
from tsv_bench.methods.learned.block_coefficients import PER
from tsv_bench.methods.learned.learning import generator
from tsv_bench.models import normalize
from tsv_bench.models.forward.linear_layers import embed
from tsv_bench.state_dicts.steps.unfinished import Unfinished
from tsv_bench.task_vectors.places import place_of
from tsv_bench.task_vectors.task_vector import apply

FEW = {"epochs": 3, "batch_size": 5}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return SmallSuite(tmp_path_factory.mktemp("pro_distill"))


def learned(suite, tasks=TASKS, bench=None, **knobs):
    """(merged vector, bench) of some tasks."""
    bench = bench or suite.bench
    vectors = {task: suite.vectors[task] for task in tasks}
    served = methods.pro_distill(vectors, bench=bench, **{**FEW, **knobs})
    return {name: served[tasks[0]][name] for name in served[tasks[0]]}, bench


class Double(ImageBench):
    """The small network in float64."""

    def __init__(self, suite):
        images = {task: split.images for task, split in suite.splits.items()}
        super().__init__(suite.backbone, suite.heads, images, None, device="cpu", seed=0)
        self.pretrained = {name: p.double() for name, p in self.pretrained.items()}

    def embed(self, weights, images):
        return embed(self._visual, weights, normalize(images).double())


def by_definition(bench, vectors, epochs, batch_size, rate=0.01, start=0.3, outside=0.3):
    """As the authors' code: a coefficient of each parameter's own shape, in one graph."""
    base, found = bench.pretrained, {}
    depths = {name: place_of(name).depth for name in base}
    for name, depth in depths.items():
        if depth is None:
            found[name] = outside * sum(vectors[task][name] for task in TASKS)
    merged = {name: base[name] + found[name] for name in found}
    z = torch.cat([bench.embed(merged, bench.images(task)) for task in TASKS])
    own = {task: apply(base, vectors[task], 1.0) for task in TASKS}
    wanted = torch.cat([bench.embed(own[task], bench.images(task)) for task in TASKS])
    of_task = torch.arange(len(TASKS)).repeat_interleave(len(z) // len(TASKS))
    for number in range(bench.num_blocks):
        names = [name for name in base if depths[name] == number]
        raw = {(n, t): torch.full_like(vectors[t][n], start) for n in names for t in TASKS}
        mean, square, step = dict.fromkeys(raw, 0), dict.fromkeys(raw, 0), 0

        def weights(raw, names=names):
            return {n: base[n] + sum(raw[n, t] * vectors[t][n] for t in TASKS) for n in names}

        after = torch.empty_like(wanted)
        for t, task in enumerate(TASKS):  # every network on all images, then those of the task
            whole = bench.run_block(own[task], number, wanted)
            after[of_task == t] = whole[of_task == t]
        wanted = after.detach()
        drawn = generator(bench, " ".join(TASKS), f"pro_distill, block {number}")
        for _ in range(epochs):
            for rows in torch.randperm(len(z), generator=drawn).split(batch_size):
                step += 1
                leaves = {key: c.clone().requires_grad_(True) for key, c in raw.items()}
                made = bench.run_block(weights(leaves), number, z[rows])
                loss = sum(
                    ((made[of_task[rows] == t] - wanted[rows][of_task[rows] == t]) ** 2).sum()
                    for t in range(len(TASKS))
                )
                gradients = torch.autograd.grad(loss, list(leaves.values()))
                for key, g in zip(leaves, gradients, strict=True):
                    mean[key] = 0.9 * mean[key] + 0.1 * g
                    square[key] = 0.999 * square[key] + 0.001 * g**2
                    length = (square[key] / (1 - 0.999**step)).sqrt() + 1e-8
                    raw[key] = raw[key] - rate * mean[key] / (1 - 0.9**step) / length
        with torch.no_grad():
            z = bench.run_block(weights(raw), number, z)
        found |= {name: sum(raw[name, t] * vectors[t][name] for t in TASKS) for name in names}
    return found


def test_it_is_the_authors_definition_written_out(suite):
    vectors = {t: {n: d.double() for n, d in v.items()} for t, v in suite.vectors.items()}
    bench = Double(suite)
    served = methods.pro_distill(vectors, bench=bench, epochs=2, batch_size=5)["a"]
    expected = by_definition(bench, vectors, epochs=2, batch_size=5)
    for name, delta in expected.items():
        # Where a gradient nearly cancels, Adam's step makes its rounding larger.
        torch.testing.assert_close(served[name], delta, rtol=1e-8, atol=1e-8)


@torch.no_grad()
def losses(suite, vector):
    """The loss of each block, by plain passes through whole networks."""
    bench = suite.bench
    merged = apply(bench.pretrained, vector, 1.0)
    found = [0.0] * bench.num_blocks
    for task in TASKS:
        own = apply(bench.pretrained, suite.vectors[task], 1.0)
        x, y = (bench.embed(weights, bench.images(task)) for weights in (merged, own))
        for number in range(bench.num_blocks):
            x, y = bench.run_block(merged, number, x), bench.run_block(own, number, y)
            found[number] += (x - y).square().sum().item()
    return found


@pytest.mark.parametrize("per", PER)
def test_no_block_ends_above_its_start_and_streams_are_those_of_plain_passes(suite, per):
    vector, bench = learned(suite, per=per)
    noted = bench.details["pro_distill"]["loss"]
    assert len(noted) == 2 and all(loss["end"] < loss["start"] for loss in noted)
    # float32's rounding, through two blocks.
    assert losses(suite, vector) == pytest.approx([loss["end"] for loss in noted], rel=1e-4)


def test_one_task_at_coefficient_one_has_no_loss_and_stays(suite):
    vector, bench = learned(suite, tasks=["a"], start=1, outside=1)
    assert bench.details["pro_distill"]["loss"] == [{"start": 0.0, "end": 0.0}] * 2
    for name, delta in vector.items():
        assert torch.equal(delta, suite.vectors["a"][name]), name


def test_one_task_comes_near_to_its_own_network(suite):
    vector, bench = learned(suite, tasks=["a"], outside=1, epochs=20, learning_rate=0.1)
    loss = bench.details["pro_distill"]["loss"]
    assert all(of_block["end"] < 0.1 * of_block["start"] for of_block in loss)


def test_without_an_epoch_it_is_task_arithmetic(suite):
    vector, bench = learned(suite, epochs=0, start=0.4, outside=0.2)
    assert bench.backward_passes == 0
    for name, delta in vector.items():
        factor = 0.2 if place_of(name).depth is None else 0.4
        torch.testing.assert_close(delta, factor * sum(suite.vectors[t][name] for t in TASKS))


def test_each_task_is_seen_through_its_own_network_alone(suite):
    """A task's own block gets its own 6 of 12 images, in each of two blocks."""
    _, bench = learned(suite)
    # Of a whole network: own blocks, the loss at start and end, the merged block, and learning.
    assert bench.forward_passes == pytest.approx(12 * (1 + 2 + 1 + 3))
    assert bench.backward_passes == pytest.approx(12 * 3)


def test_the_order_of_the_tasks_does_not_matter_to_the_last_bit(suite):
    vector, _ = learned(suite)
    flipped, _ = learned(suite, tasks=TASKS[::-1])
    assert all(torch.equal(delta, flipped[name]) for name, delta in vector.items())


def test_learning_begins_with_the_first_layer_of_a_block_and_is_done_once(suite):
    bench = suite.bench
    served = methods.pro_distill(suite.vectors, bench=bench, **FEW)
    served["a"]["proj"]
    assert bench.forward_passes == 0 and served["a"] is served["b"]
    name = "transformer.resblocks.1.mlp.c_fc.weight"
    first, passes = served["b"][name], bench.forward_passes
    assert torch.equal(served["a"][name], first) and bench.forward_passes == passes > 0


@pytest.mark.parametrize("rate", [10, 1e6, 1e30])
def test_a_loss_that_grows_is_given_up_for_the_start(suite, caplog, rate):
    vector, bench = learned(suite, learning_rate=rate)
    assert "the block keeps the coefficients of the start. Lower learning_rate?" in caplog.text
    start, _ = learned(suite, epochs=0)
    assert all(torch.equal(delta, start[name]) for name, delta in vector.items())
    assert all(loss["start"] == loss["end"] for loss in bench.details["pro_distill"]["loss"])


def test_a_killed_run_goes_on_behind_the_last_block_with_the_same_result(suite, tmp_path):
    expected, whole = learned(suite)
    bench = suite.bench
    bench._unfinished = Unfinished(tmp_path / "kept", "run")
    keep = bench.keep

    def killed(name, tensors):
        keep(name, tensors)
        raise KeyboardInterrupt

    bench.keep = killed
    with pytest.raises(KeyboardInterrupt):
        learned(suite, bench=bench)
    again = suite.bench
    again._unfinished = Unfinished(tmp_path / "kept", "run")
    run_block, steps = again.run_block, []

    def counted(*given):
        result = run_block(*given)
        steps.extend([given[1]] * result.requires_grad)
        return result

    again.run_block = counted
    found, _ = learned(suite, bench=again)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert again.details == whole.details
    # The first block's steps are not done again, and what they passed is counted all the same.
    assert set(steps) == {1} and again.backward_passes == whole.backward_passes > 0


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ({"per": "layer"}, "per='layer' is not for what there is a coefficient of each task"),
        ({"start": -1}, "start=-1 is not a number from 0 on"),
        ({"outside": -1}, "outside=-1 is not a number from 0 on"),
        ({"learning_rate": 0}, "learning_rate=0 is not a positive number"),
        ({"epochs": -1}, "epochs=-1 is not a whole number from 0 on"),
        ({"batch_size": 0}, "batch_size=0 is not a whole number from 1 on"),
    ],
)
def test_knobs_out_of_range_are_refused(knob, message):
    with pytest.raises(ValueError, match=message):
        methods.pro_distill({}, bench=None, **knob)


def test_without_a_bench_it_says_how_to_get_one():
    with pytest.raises(ValueError, match="pro_distill learns on images of the tasks and got none"):
        methods.pro_distill({"a": {"x": torch.ones(2)}}, bench=None)
