"""The diagonal Fisher information is the mean of squares of single gradients, not its reverse."""

import pytest
import torch
import torch.nn.functional as F

from tsv_bench.models import build_mini, normalize
from tsv_bench.observation import fisher
from tsv_bench.observation.fisher import class_weights, diagonal_fisher


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    visual = build_mini("mini", 9).visual.eval()
    size = visual.image_size[0]
    pixels = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    return visual, torch.randn(4, visual.proj.shape[1]), pixels


def squared_gradients(network, weights):
    """Name -> the weighted mean of squared gradients of log probabilities, one at a time."""
    visual, head, pixels = network
    parameters = dict(visual.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for image, of_image in zip(normalize(pixels), weights, strict=True):
        logits = F.normalize(visual(image[None]), dim=-1) @ head.T
        for label, weight in enumerate(of_image):
            loss = logits.log_softmax(dim=-1)[0, label]
            gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
            for name, gradient in zip(total, gradients, strict=True):
                total[name] += weight * gradient.square() / len(pixels)
    return total


def logits_of(network):
    visual, head, pixels = network
    with torch.no_grad():
        return F.normalize(visual(normalize(pixels)), dim=-1) @ head.T


@pytest.mark.parametrize("classes", ["exact", "sampled"])
@pytest.mark.parametrize("at_once", [1, 2**26])
def test_it_is_that_of_gradients_taken_one_by_one(network, classes, at_once, monkeypatch):
    monkeypatch.setattr(fisher, "AT_ONCE", at_once)  # one image at a time, or all
    generator = torch.Generator().manual_seed(5)
    weights = class_weights(logits_of(network), classes, generator)
    visual, head, pixels = network
    parameters = dict(visual.named_parameters())
    found, count = diagonal_fisher(visual, parameters, head, pixels, classes, 5)
    assert count == (12 if classes == "exact" else 3)
    for name, expected in squared_gradients(network, weights).items():
        assert (found[name] - expected).norm() <= 1e-5 * expected.norm() + 1e-12, name


def test_what_is_sampled_has_the_exact_one_for_its_mean():
    logits = torch.tensor([[0.0, 1.0, -1.0]]).expand(20_000, 3)
    sampled = class_weights(logits, "sampled", torch.Generator().manual_seed(0))
    assert (sampled.sum(dim=1) == 1).all()
    # Four standard errors of a share near one half.
    torch.testing.assert_close(sampled.mean(0), logits[0].softmax(-1), rtol=0, atol=0.014)
