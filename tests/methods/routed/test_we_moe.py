"""WEMoE: MLPs with gates of all tasks, learned by the entropy of predictions."""

import pytest
import torch
from made_up.small_suite import TASKS, SmallSuite

from tsv_bench import methods
from tsv_bench.methods.learned.ada_merging import entropy
from tsv_bench.methods.routed.experts import MLP, bias_of
from tsv_bench.methods.served import served_by
from tsv_bench.task_vectors.task_vector import apply


@pytest.fixture
def suite(tmp_path):
    return SmallSuite(tmp_path)


def learned(suite, **knobs):
    bench = suite.bench
    served = served_by(lambda v: methods.we_moe(v, bench=bench, **knobs), suite.vectors, "we_moe")
    return served.in_memory(), bench


def features(served, bench, images, average=False):
    weights = apply(bench.pretrained, served.routing.shared, 1.0)
    linear = served.router.experts.linear(served.router.gates(None, average=average))
    return bench.features(weights, images, linear)


def test_gates_of_one_value_are_task_arithmetic_of_it(suite):
    served, bench = learned(suite, steps=0, start=0.2, scale=0.2)
    for of_layer in served.router.of_layer.values():
        of_layer["weight2"].zero_()
    images = bench.images("a")
    summed = methods.task_arithmetic(suite.vectors)["a"]
    expected = bench.features(apply(bench.pretrained, summed, 0.2), images)
    torch.testing.assert_close(features(served, bench, images), expected, rtol=1e-4, atol=1e-5)


def test_an_expert_alone_is_the_tasks_mlp_in_the_rest_of_all(suite):
    served = methods.we_moe(suite.vectors, bench=None)
    for name, delta in suite.vectors["b"].items():
        summed = 0.3 * sum(suite.vectors[task][name] for task in TASKS)
        is_mlp = name.endswith((*MLP, *map(bias_of, MLP)))
        torch.testing.assert_close(served["b"][name], delta if is_mlp else summed)


def test_one_step_is_adams_on_the_mean_entropy_of_all_tasks(suite):
    start, bench = learned(suite, steps=0, batch_size=6)
    tensors = [t.requires_grad_(True) for t in start.router.tensors.values()]
    loss = 0
    for task in TASKS:
        found = features(start, bench, bench.images(task), average=True)
        loss = loss + entropy(bench.logits(task, found)) / 2
    gradients = torch.autograd.grad(loss, tensors)
    after, _ = learned(suite, steps=1, batch_size=6, learning_rate=1e-3)
    pairs = zip(tensors, gradients, after.router.tensors.values(), strict=True)
    for before, gradient, now in pairs:
        big = gradient.abs() > 1e-5  # below, Adam's eps and rounding decide
        assert big.any()
        moved = (now - before).detach()
        torch.testing.assert_close(moved[big], -1e-3 * gradient.sign()[big], rtol=2e-2, atol=0)


def test_in_training_the_images_of_a_batch_share_their_mean_gates(suite):
    served, _ = learned(suite, steps=0)
    name = next(iter(served.router.of_layer))
    x = torch.randn(4, 3, 32, generator=torch.Generator().manual_seed(0))
    own = served.router.gates(None)(name, x)
    shared = served.router.gates(None, average=True)(name, x)
    assert own.shape == (4, len(TASKS)) and shared.shape == (1, len(TASKS))
    torch.testing.assert_close(shared[0], own.mean(dim=0))


def test_the_entropy_falls_and_the_passes_are_counted(suite):
    few = {"batch_size": 6, "learning_rate": 1e-3}

    def mean_entropy(steps):
        served, bench = learned(suite, steps=steps, **few)
        count = bench.forward_passes, bench.backward_passes
        losses = [
            entropy(bench.logits(task, features(served, bench, bench.images(task), average=True)))
            for task in TASKS
        ]
        return sum(losses).item(), count

    (before, none), (after, passes) = mean_entropy(0), mean_entropy(20)
    assert after < before and none == (0, 0) and passes == (240, 240)


def test_stored_are_what_is_shared_the_mlps_and_the_routers(suite):
    served, _ = learned(suite, steps=0)
    size = {name: delta.numel() for name, delta in suite.vectors["a"].items()}
    mlps = sum(n for name, n in size.items() if name.endswith((*MLP, *map(bias_of, MLP))))
    shared = sum(size.values()) - mlps - 1  # logit_scale, which no task changed
    routers = 2 * (32 * 32 + 32 + 32 * 2 + 2)
    nothing = sum(n for name, n in size.items() if not suite.vectors["a"][name].any())
    assert served.stored_bytes() == 4 * (shared + 1 - nothing + 2 * mlps + routers)


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ({"scale": -1}, "scale=-1"), ({"start": -1}, "start=-1"), ({"steps": -1}, "steps=-1"),
        ({"learning_rate": 0}, "learning_rate=0"), ({"batch_size": 0}, "batch_size=0"),
    ],
)  # fmt: skip
def test_knobs_out_of_range(knob, message):
    with pytest.raises(ValueError, match=message):
        methods.we_moe({}, bench=None, **knob)
