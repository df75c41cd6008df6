"""Learning of one mask: gradients in parts, and a loss that stops being finite."""

import pytest
import torch
from made_up.bench import MadeUpBench
from made_up.vectors import close, random_vectors

from tsv_bench.methods.learned import learned_masks
from tsv_bench.methods.learned.learned_masks import Recipe, add_gradients, learn_mask
from tsv_bench.task_vectors.lazy import as_lazy

RECIPE = {"density": 0.05, "learning_rate": 1e6, "batch_size": 128, "penalty": 1.0,
          "confidence": 5.0}  # fmt: skip


def gradients(bench, batch_size):
    weights = {name: p.clone().requires_grad_() for name, p in bench.pretrained.items()}
    loss = add_gradients(bench, "task0", weights, {}, batch_size)
    return loss, {name: w.grad for name, w in weights.items() if w.grad is not None}


def test_gradients_are_those_of_the_sum_of_batches_means(monkeypatch):
    bench = MadeUpBench(["task0"])
    whole = gradients(bench, 12)
    weights = {name: p.clone().requires_grad_() for name, p in bench.pretrained.items()}
    logits = bench.logits("task0", bench.features(weights, bench.images("task0")))
    losses = torch.nn.functional.cross_entropy(logits, bench.labels("task0"), reduction="none")
    losses.mean().backward(retain_graph=True)
    for name, gradient in whole[1].items():
        torch.testing.assert_close(gradient, weights[name].grad, **close)
        weights[name].grad = None
    (losses[:5].mean() + losses[5:10].mean() + losses[10:].mean()).backward()
    monkeypatch.setattr(learned_masks, "AT_ONCE", 2)
    loss, parts = gradients(bench, 5)
    for name, gradient in parts.items():
        torch.testing.assert_close(gradient, weights[name].grad, **close)
    expected = losses[:5].mean() + losses[5:10].mean() + losses[10:].mean()
    torch.testing.assert_close(loss.double(), expected.detach(), **close)


class Breaking(MadeUpBench):
    """Its loss is not a number from a step on."""

    step = 0

    def __init__(self, tasks, last, value):
        super().__init__(tasks)
        self.last, self.value = last, value

    def logits(self, task, features):
        self.step += 1
        found = super().logits(task, features)
        return found * self.value if self.step > self.last else found


@pytest.mark.parametrize("last", [0, 2])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_ends_learning_and_the_last_mask_is_kept(last, value, caplog):
    vector = as_lazy(random_vectors(1)["task0"])
    broken = Breaking(["task0"], last, value)
    found = learn_mask(broken, "task0", vector, Recipe(**RECIPE, epochs=9))
    # The mask of the last finite loss is that of one step less.
    sound = Recipe(**RECIPE, epochs=max(last - 1, 0))
    expected = learn_mask(MadeUpBench(["task0"]), "task0", vector, sound)
    assert all(torch.equal(found[name], expected[name]) for name in vector)
    start = learn_mask(MadeUpBench(["task0"]), "task0", vector, Recipe(**RECIPE, epochs=0))
    assert all(torch.equal(found[name], start[name]) for name in vector) == (last == 0)
    assert f"loss of task0 is nan at step {last + 1} of 9" in caplog.text
    assert "Lower learning_rate" in caplog.text and broken.step == last + 1
