"""A router that tells the task of an image from its features in a frozen network."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.bench import Bench, check_fits
from tsv_bench.methods.knobs import (
    check_choice,
    check_not_negative,
    check_positive,
    check_range,
    check_whole,
)
from tsv_bench.methods.learned.learning import Adam, generator
from tsv_bench.methods.routed.experts import Experts
from tsv_bench.methods.routed.routed_vector import READS, one_hot
from tsv_bench.task_vectors.streaming import watched
from tsv_bench.task_vectors.task_vector import apply

log = logging.getLogger(__name__)
AT_ONCE = 64  # images whose features are computed together


@dataclass(frozen=True)
class FeatureRouter:
    """Layers, with relu between them, of normalized features; softmax of what they give."""

    tasks: Sequence[str]
    reads: str
    layers: Sequence[tuple[Float[Tensor, "m n"], Float[Tensor, " m"]]]
    experts: Experts | None = None
    mixture: bool = True  # of experts; False: the likeliest one counts alone

    @property
    def tensors(self) -> dict[str, Tensor]:
        pairs = {f"{i}": pair for i, pair in enumerate(self.layers)}
        return {
            f"{number}.{name}": tensor
            for number, pair in pairs.items()
            for name, tensor in zip(("weight", "bias"), pair, strict=True)
        }

    def gates(self, features: Float[Tensor, "images dim"]) -> Float[Tensor, "images tasks"]:
        found = run(self.layers, F.normalize(features, dim=-1)).softmax(dim=1)
        return found if self.mixture else one_hot(found.argmax(dim=1), len(self.tasks))


@dataclass(frozen=True, kw_only=True)
class RouterRecipe:
    """How a router of features is learned; the fields are knobs of methods."""

    reads: str  # whose features: `READS`
    hidden: Sequence[int]  # widths between features and tasks; none: a linear router
    epochs: int
    learning_rate: float | int
    weight_decay: float | int
    batch_size: int
    held_out: float | int  # share of the images by which the best epoch is chosen

    def check(self) -> None:
        """Raise ValueError for a knob out of range."""
        check_choice("router_reads", self.reads, READS, "a network whose features are read")
        if not isinstance(self.hidden, Sequence) or isinstance(self.hidden, str):
            raise ValueError(f"router_hidden={self.hidden!r} is not a list of widths, as [512].")
        for width in self.hidden:
            check_whole("router_hidden", width, "the width of a layer", 1)
        check_whole("router_epochs", self.epochs, "how often all images are seen", 1)
        check_positive("router_learning_rate", self.learning_rate, "how far Adam moves a weight")
        check_not_negative("router_weight_decay", self.weight_decay, "what pulls weights to zero")
        check_whole("router_batch_size", self.batch_size, "the number of images in a step", 1)
        check_range("router_held_out", self.held_out, 0.05, 0.5, "the share of images held out")

    def learn(self, bench: Bench, shared: Mapping[str, Tensor], tasks: Sequence[str]) -> "Learned":
        """Learn the task of the bench's images; keep the epoch that knows most held-out ones."""
        check_fits(bench, {task: shared for task in tasks})
        weights = bench.pretrained
        if self.reads == "shared":
            weights = apply(bench.pretrained, shared, 1.0)
        features = {}
        for task in watched(tasks, len(tasks), "router: features"):
            features[task] = features_of(bench, weights, bench.images(task))
        learned = self.fit(bench, features)
        bench.note(
            "router",
            {
                "held_out": {task: len(rows) for task, rows in learned.held_out.items()},
                "accuracy": {task: learned.accuracy[task] for task in tasks},
                "epoch": learned.epoch,
            },
        )
        return learned

    def fit(self, bench: Bench, features: Mapping[str, Float[Tensor, "images dim"]]) -> "Learned":
        """Fit the router to features of each task's images."""
        tasks = list(features)
        seen, held_out = {}, {}
        for task, of_task in features.items():
            order = torch.randperm(len(of_task), generator=generator(bench, task, "held out"))
            count = max(1, round(self.held_out * len(of_task)))
            if count >= len(of_task):
                raise ValueError(
                    f"a router needs two images of each task, one to learn and one to choose by; "
                    f"{task} has {len(of_task)}. Raise method.images."
                )
            seen[task], held_out[task] = order[count:].sort()[0], order[:count].sort()[0]
        device = next(iter(features.values())).device
        features = {task: F.normalize(of_task, dim=-1) for task, of_task in features.items()}
        x = torch.cat([features[t][seen[t].to(device)] for t in tasks])
        # Features of a CLIP lie close together: apart they are learned in few steps.
        centre, spread = x.mean(dim=0), x.std(dim=0).clamp_min(1e-6)
        x = (x - centre) / spread
        apart = {t: (features[t][held_out[t].to(device)] - centre) / spread for t in tasks}
        y = torch.cat([torch.full((len(seen[t]),), i) for i, t in enumerate(tasks)]).to(device)
        layers = self._start(bench, x, len(tasks))
        parameters = [tensor for pair in layers for tensor in pair]
        adam = Adam(parameters, self.learning_rate)
        best, kept = None, None
        shuffle = generator(bench, " ".join(tasks), "router")
        for epoch in watched(range(1, self.epochs + 1), self.epochs, "router: epochs"):
            order = torch.randperm(len(x), generator=shuffle).to(device)
            for rows in order.split(self.batch_size):
                with torch.enable_grad():
                    loss = F.cross_entropy(run(layers, x[rows]), y[rows])
                    decay = sum(weight.square().sum() for weight, _ in layers)
                    loss = loss + self.weight_decay / 2 * decay
                    for parameter in parameters:
                        parameter.grad = None
                    loss.backward()
                adam.step()
            found = {t: run(layers, apart[t]).argmax(dim=1) == i for i, t in enumerate(tasks)}
            score = sum(hits.double().mean().item() for hits in found.values())
            if best is None or score > best:
                best = score
                kept = Learned(
                    [(w.detach().clone(), b.detach().clone()) for w, b in layers],
                    {t: hits.double().mean().item() for t, hits in found.items()},
                    held_out,
                    epoch,
                )
        (weight, bias), *others = kept.layers
        weight = weight / spread  # from here on the first layer takes them as they are
        return replace(kept, layers=[(weight, bias - weight @ centre), *others])

    def _start(self, bench: Bench, x: Tensor, num_tasks: int) -> list[tuple[Tensor, Tensor]]:
        """Return layers as torch draws linear maps: uniform up to 1 / sqrt(inputs)."""
        widths = [x.shape[1], *self.hidden, num_tasks]
        drawn = generator(bench, "router", "start")
        layers = []
        for n, m in zip(widths[:-1], widths[1:], strict=True):
            bound = n**-0.5
            weight = (2 * torch.rand(m, n, dtype=torch.float64, generator=drawn) - 1) * bound
            bias = (2 * torch.rand(m, dtype=torch.float64, generator=drawn) - 1) * bound
            layers.append(tuple(tensor.to(x).requires_grad_(True) for tensor in (weight, bias)))
        return layers


@dataclass(frozen=True)
class Learned:
    """A learned router's layers and how many held-out images of each task it knows."""

    layers: Sequence[tuple[Tensor, Tensor]]
    accuracy: Mapping[str, float]
    held_out: Mapping[str, Tensor]  # task -> rows of the bench's images
    epoch: int  # the first is 1


def run(layers: Sequence[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """Return what the layers make of x, with relu between them."""
    for number, (weight, bias) in enumerate(layers):
        x = F.linear(x.relu() if number else x, weight, bias)
    return x


@torch.no_grad()
def features_of(bench: Bench, weights: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Return the features [images, dim] of a task's images, some at a time."""
    return torch.cat([bench.features(weights, part) for part in images.split(AT_ONCE)])
