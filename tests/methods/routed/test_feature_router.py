"""A router learns the task of an image from frozen features, and an epoch is chosen honestly."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from made_up.bench import MadeUpBench

from tsv_bench.methods.routed.feature_router import FeatureRouter, RouterRecipe

RECIPE = RouterRecipe(
    reads="zero_shot", hidden=[8], epochs=20, learning_rate=1e-2, weight_decay=0,
    batch_size=16, held_out=0.25,
)  # fmt: skip
BENCH = MadeUpBench([])


def features(num_images=40, noise=0.1):
    """Of three tasks, around directions that lie as close together as a CLIP's."""
    generator = torch.Generator().manual_seed(0)
    common = 3 * torch.randn(12, generator=generator)
    return {
        task: common + torch.randn(12, generator=generator)
        + noise * torch.randn(num_images, 12, generator=generator)
        for task in "abc"
    }  # fmt: skip


def router(learned):
    return FeatureRouter(list("abc"), "zero_shot", learned.layers)


@pytest.mark.parametrize("hidden", [[], [8], [8, 4]])
def test_tasks_that_lie_apart_are_told_apart(hidden):
    learned = replace(RECIPE, hidden=hidden).fit(BENCH, features())
    assert learned.accuracy == dict.fromkeys("abc", 1.0)
    made = router(learned)
    for number, of_task in enumerate(features().values()):
        gates = made.gates(of_task)
        torch.testing.assert_close(gates.sum(dim=1), torch.ones(40))
        assert (gates.argmax(dim=1) == number).all()
    sizes = [12, *hidden, 3]
    expected = sum((n + 1) * m for n, m in zip(sizes[:-1], sizes[1:], strict=True))
    assert sum(tensor.numel() for tensor in made.tensors.values()) == expected


def test_held_out_images_change_only_which_epoch_is_kept():
    """Other values of theirs, and nothing is learned differently."""
    noisy, one = features(noise=2), replace(RECIPE, epochs=1)
    learned = one.fit(BENCH, noisy)
    changed = {task: x.clone() for task, x in noisy.items()}
    for task, rows in learned.held_out.items():
        assert len(rows) == 10
        changed[task][rows] = -7 * changed[task][rows].flip(0)
    again = one.fit(BENCH, changed)
    for first, second in zip(learned.layers, again.layers, strict=True):
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_the_epoch_that_is_kept_is_the_first_of_the_best():
    noisy = features(noise=2)
    long = replace(RECIPE, epochs=10).fit(BENCH, noisy)
    scores = [replace(RECIPE, epochs=n).fit(BENCH, noisy).accuracy for n in range(1, 11)]
    best = [sum(score.values()) for score in scores]
    assert long.epoch == best.index(max(best)) + 1 < 10 and long.accuracy == scores[long.epoch - 1]
    made = router(long)
    for number, (task, rows) in enumerate(long.held_out.items()):
        hits = made.gates(noisy[task][rows]).argmax(dim=1) == number
        assert hits.double().mean().item() == long.accuracy[task]


def test_without_a_mixture_one_task_counts():
    layers = RECIPE.fit(BENCH, features()).layers
    soft = FeatureRouter(list("abc"), "shared", layers)
    hard = replace(soft, mixture=False)
    x = features(noise=2)["b"]
    assert torch.equal(hard.gates(x), F.one_hot(soft.gates(x).argmax(dim=1), 3).float())


def test_one_image_of_a_task_is_too_few():
    with pytest.raises(ValueError, match=r"needs two images of each task, .*; a has 1"):
        RECIPE.fit(BENCH, features(num_images=1))


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ({"reads": "resnet"}, "router_reads='resnet'"),
        ({"hidden": 512}, r"router_hidden=512 is not a list of widths"),
        ({"hidden": [0]}, "router_hidden=0"),
        ({"epochs": 0}, "router_epochs=0"),
        ({"learning_rate": 0}, "router_learning_rate=0"),
        ({"weight_decay": -1}, "router_weight_decay=-1"),
        ({"batch_size": 0}, "router_batch_size=0"),
        ({"held_out": 0.9}, "router_held_out=0.9"),
    ],
)
def test_knobs_out_of_range(knob, message):
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **knob).check()
