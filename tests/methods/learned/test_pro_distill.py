"""ProDistill: blocks are distilled in turn, from each task's own network on its own images."""

import pytest
import torch
from made_up.small_suite import TASKS, SmallSuite

from tsv_bench import methods
from tsv_bench.benchmark.given.unfinished import Unfinished
from tsv_bench.methods.learned.block_coefficients import PER, BlockCoefficients
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


def tokens_of(bench, weights, images, number):
    """What block ``number`` gets, by a plain pass."""
    tokens = bench.embed(weights, images)
    for block in range(number):
        tokens = bench.run_block(weights, block, tokens)
    return tokens


@torch.no_grad()
def losses(suite, vector):
    """The loss of each block, by plain passes through whole networks."""
    bench = suite.bench
    merged = apply(bench.pretrained, vector, 1.0)
    found = [0.0] * bench.num_blocks
    for task in TASKS:
        own, images = apply(bench.pretrained, suite.vectors[task], 1.0), bench.images(task)
        for number in range(bench.num_blocks):
            pair = [tokens_of(bench, w, images, number + 1) for w in (merged, own)]
            found[number] += (pair[0] - pair[1]).square().sum().item()
    return found


@pytest.mark.parametrize("per", PER)
def test_no_block_ends_above_its_start_and_streams_are_those_of_plain_passes(suite, per):
    vector, bench = learned(suite, per=per)
    noted = bench.details["pro_distill"]["loss"]
    assert len(noted) == 2 and all(loss["end"] < loss["start"] for loss in noted)
    assert losses(suite, vector) == pytest.approx([loss["end"] for loss in noted], rel=1e-4)


def test_coefficients_are_per_entry_tensor_or_task():
    vector = {"a": torch.tensor([[1.0, 2], [3, 4]]), "b": torch.tensor([5.0, 6])}
    other = {name: 10 * delta for name, delta in vector.items()}
    gradients = {"a": torch.tensor([[1.0, 0], [0, -1]]), "b": torch.tensor([2.0, 0])}
    inner = {"a": 1 - 4, "b": 10}
    for per, shapes in (
        ("entry", [(2, 2)] * 2 + [(2,)] * 2),
        ("tensor", [(2,)] * 2),
        ("task", [(2,)]),
    ):
        made = BlockCoefficients([vector, other], per, 0.5)
        assert [tuple(p.shape) for p in made.parameters] == shapes
        for name, merged in made.merged().items():
            torch.testing.assert_close(merged, 5.5 * vector[name])
        found = [made.gradient(n, gradients) for n in range(len(shapes))]
        wanted = {
            "entry": [g[n] * gradients[n] for n in "ab" for g in (vector, other)],
            "tensor": [torch.tensor([1.0, 10]) * inner[name] for name in "ab"],
            "task": [torch.tensor([1.0, 10]) * sum(inner.values())],
        }[per]
        torch.testing.assert_close(found, wanted)


def test_gradients_are_those_of_autograd(suite):
    """Of the loss as a function of the coefficients themselves."""
    bench, names = suite.bench, [n for n in suite.vectors["a"] if place_of(n).depth == 1]
    deltas = [{name: suite.vectors[task][name] for name in names} for task in TASKS]
    x = tokens_of(bench, bench.pretrained, bench.images("a"), 1)
    for per in PER:
        made = BlockCoefficients(deltas, per, 0.3)

        def loss(merged):
            weights = {n: bench.pretrained[n] + merged[n] for n in names}
            return bench.run_block(weights, 1, x).square().sum()

        leaves = {n: d.clone().requires_grad_(True) for n, d in made.merged().items()}
        found = torch.autograd.grad(loss(leaves), list(leaves.values()))
        found = dict(zip(leaves, found, strict=True))
        for parameter in made.parameters:
            parameter.requires_grad_(True)
        merged = BlockCoefficients.merged(made)
        expected = torch.autograd.grad(loss(merged), made.parameters)
        for number, wanted in enumerate(expected):
            got = made.gradient(number, found)
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)


def test_one_task_at_coefficient_one_has_no_loss_and_stays(suite):
    vector, bench = learned(suite, tasks=["a"], start=1, outside=1)
    assert bench.details["pro_distill"]["loss"] == [{"start": 0.0, "end": 0.0}] * 2
    for name, delta in vector.items():
        assert torch.equal(delta, suite.vectors["a"][name]), name


def test_without_an_epoch_it_is_task_arithmetic(suite):
    vector, bench = learned(suite, epochs=0, start=0.4, outside=0.2)
    assert bench.backward_passes == 0
    for name, delta in vector.items():
        factor = 0.2 if place_of(name).depth is None else 0.4
        torch.testing.assert_close(delta, factor * sum(suite.vectors[t][name] for t in TASKS))


def test_each_task_is_seen_through_its_own_network_alone(suite):
    """A task's own block runs on its own images: 6 of 12, of each of two blocks."""
    _, bench = learned(suite, epochs=0)
    # Of half a network each: own blocks, two losses at the start, the merged block's pass.
    assert bench.forward_passes == pytest.approx(2 * (12 + 2 * 12 + 12) / 2)


def test_a_loss_that_grows_is_given_up_for_the_start(suite, caplog):
    vector, bench = learned(suite, learning_rate=1e6)
    assert "the block keeps the coefficients of the start. Lower learning_rate?" in caplog.text
    start, _ = learned(suite, epochs=0)
    assert all(torch.equal(delta, start[name]) for name, delta in vector.items())


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
    found, _ = learned(suite, bench=again)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert again.details == whole.details
    # The first block's steps are not done again: half of the backward passes.
    assert again.backward_passes == whole.backward_passes / 2 > 0


def test_what_is_large_is_read_from_disk_with_the_same_result(suite, tmp_path, monkeypatch):
    expected, _ = learned(suite)
    monkeypatch.setattr("tsv_bench.methods.learned.pro_distill.LARGE", 0)
    monkeypatch.setattr("tsv_bench.methods.learned.pro_distill.MANY", 0)
    bench = suite.bench
    bench._unfinished = Unfinished(tmp_path / "kept", "run")
    found, _ = learned(suite, bench=bench)
    assert bench._unfinished.path("wanted").exists()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    without_store, _ = learned(suite)
    assert all(torch.equal(without_store[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ({"per": "layer"}, "per='layer'"), ({"start": -1}, "start=-1"),
        ({"outside": -1}, "outside=-1"), ({"learning_rate": 0}, "learning_rate=0"),
        ({"epochs": -1}, "epochs=-1"), ({"batch_size": 0}, "batch_size=0"),
    ],
)  # fmt: skip
def test_knobs_out_of_range(knob, message):
    with pytest.raises(ValueError, match=message):
        methods.pro_distill({}, bench=None, **knob)
