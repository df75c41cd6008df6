"""The diagonal of the Fisher information matrix of a classifier, parameter by parameter.

F = mean over images of E_c (d log p_c / d w)^2, where c follows the network's own p (Matena and
Raffel 2022, arXiv:2111.09832). The gradient is of one image and one class at a time. Code that
squares the gradient of a batch's mean loss, as some libraries do, computes another matrix, which
vanishes where gradients of images cancel.
"""

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from tsv_bench.models import normalize
from tsv_bench.models.forward.other_weights import features_with

AT_ONCE = 2**26  # entries of gradients of single images that are in memory at once


def class_weights(logits: Tensor, classes: str, generator: torch.Generator) -> Tensor:
    """Return how much each class of each image counts, [images, classes].

    ``classes``: "exact" weighs every class by its probability; "sampled" takes one class, drawn by
    it, whose expectation is the same.
    """
    probabilities = logits.softmax(dim=-1)
    if classes == "exact":
        return probabilities
    drawn = torch.multinomial(probabilities.cpu(), 1, generator=generator).to(logits.device)
    return torch.zeros_like(probabilities).scatter_(1, drawn, 1.0)


def diagonal_fisher(
    visual: nn.Module,
    weights: Mapping[str, Tensor],
    head: Tensor,
    images: Tensor,
    classes: str,
    seed: int,
) -> tuple[dict[str, Tensor], int]:
    """Return the diagonal Fisher information of each parameter, and the number of gradients.

    ``weights`` are used in place of the network's own. ``images``: uint8 [images, 3, size, size] on
    their device. ``head``: [classes, dim].
    ``classes`` as in `class_weights`, drawn by the ``seed``.
    """
    parameters = {name: weight.detach() for name, weight in weights.items()}
    generator = torch.Generator().manual_seed(seed)
    step = max(1, AT_ONCE // sum(p.numel() for p in parameters.values()))
    squares = {name: torch.zeros_like(p) for name, p in parameters.items()}
    per_pair = vmap(grad(partial(_log_probability, visual, head)), in_dims=(None, 0, 0))
    count = 0
    for batch in images.split(step):
        inputs = normalize(batch, visual)
        with torch.no_grad():
            logits = _logits(visual, head, parameters, inputs)
        weights = class_weights(logits, classes, generator)
        pairs = weights.nonzero(as_tuple=True)
        for rows, columns in zip(*(index.split(step) for index in pairs), strict=True):
            # Other kernels of attention have no rule for many gradients at once.
            with sdpa_kernel(SDPBackend.MATH):
                gradients = per_pair(parameters, inputs[rows], columns)
            count += len(rows)
            for name, gradient in gradients.items():
                squares[name] += torch.einsum(
                    "i,i...->...", weights[rows, columns], gradient.square()
                )
    return {name: total / len(images) for name, total in squares.items()}, count


def _logits(
    visual: nn.Module, head: Tensor, parameters: Mapping[str, Tensor], inputs: Tensor
) -> Tensor:
    return F.normalize(features_with(visual, parameters, inputs), dim=-1) @ head.T


def _log_probability(
    visual: nn.Module,
    head: Tensor,
    parameters: Mapping[str, Tensor],
    image: Tensor,
    label: Tensor,
) -> Tensor:
    logits = _logits(visual, head, parameters, image[None])
    return logits.log_softmax(dim=-1)[0].gather(0, label[None])[0]
