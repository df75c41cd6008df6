"""The bench of an image tower: what a method that learns receives (`Bench`)."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from tsv_bench.benchmark.given.reports import Reports
from tsv_bench.benchmark.given.training import Rows, Training
from tsv_bench.data import Split
from tsv_bench.models import Backbone, normalize
from tsv_bench.models.forward.linear_layers import (
    BLOCKS,
    Linear,
    blocks_of,
    embed,
    features_by,
    read_out,
)
from tsv_bench.models.forward.other_weights import features_with
from tsv_bench.observation.linear_inputs import LinearInputs, visible_products
from tsv_bench.state_dicts.steps.unfinished import Unfinished
from tsv_bench.task_vectors.statistics import Statistics

PASSES = "tsv_bench.passes"  # in the metadata of what is kept: those counted until then


class ImageBench:
    """Images of the suite, heads, and a backbone as a function of its weights.

    `forward_passes` and `backward_passes` count images that passed through the network or its
    blocks, a block as its share of the network. A pass whose result has a gradient counts as one
    backward, too.
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: Mapping[str, Tensor],
        images: Mapping[str, Tensor | Rows],
        labels: Mapping[str, Tensor] | None,
        *,
        device: str,
        seed: int,
        unfinished: Unfinished | None = None,
        training: Training | None = None,
        reports: Reports | None = None,
    ) -> None:
        """``labels``: None if the method may not see them. ``unfinished``: where it keeps work.

        ``training``: None if the method may not fine-tune. ``reports``: None if there is nothing
        to evaluate it on.
        """
        self.device, self.seed, self.tasks = device, seed, list(images)
        # The caller's weights are used in place of its own; evaluation mode, nothing is dropped.
        self._visual = backbone.visual.eval()
        self.pretrained = {name: p.to(device) for name, p in backbone.pretrained.items()}
        self._heads = {task: head.to(device).float() for task, head in heads.items()}
        self._images = {
            task: of_task.to(device) if isinstance(of_task, Tensor) else of_task
            for task, of_task in images.items()
        }
        self._labels, self._unfinished = labels, unfinished
        self._training, self._reports = training, reports
        self.details: dict[str, Any] = {}
        self.forward_passes = self.backward_passes = 0.0

    @property
    def num_blocks(self) -> int:
        return len(blocks_of(self._visual))

    def images(self, task: str) -> Tensor:
        return self._images[task][:].to(self.device)

    def labels(self, task: str) -> Tensor:
        if self._labels is None:
            raise ValueError("the method looks at labels, and its yaml does not say labels: true.")
        return self._labels[task].to(self.device)

    def head(self, task: str) -> Tensor:
        return self._heads[task]

    def features(
        self, weights: Mapping[str, Tensor], images: Tensor, linear: Linear | None = None
    ) -> Tensor:
        if linear:
            found = features_by(self._visual, weights, normalize(images, self._visual), linear)
        else:
            found = features_with(self._visual, weights, normalize(images, self._visual))
        return self._counted(found, len(images))

    def logits(self, task: str, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1) @ self._heads[task].T

    def embed(self, weights: Mapping[str, Tensor], images: Tensor) -> Tensor:
        return embed(self._visual, weights, normalize(images, self._visual))

    def run_block(self, weights: Mapping[str, Tensor], number: int, tokens: Tensor) -> Tensor:
        prefix = f"{BLOCKS}.{number}."
        own = {n.removeprefix(prefix): weights[n] for n in weights if n.startswith(prefix)}
        found = functional_call(blocks_of(self._visual)[number], own, (tokens,))
        return self._counted(found, len(tokens) / self.num_blocks)

    def read_out(self, weights: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
        return read_out(self._visual, weights, tokens)

    def linear_inputs(self, weights: Mapping[str, Tensor], run: Callable[[], object]) -> Statistics:
        with torch.no_grad(), visible_products(), LinearInputs(weights, ("inputs",)) as inputs:
            run()
        layers = {name: inputs.statistics("inputs", name) for name in inputs.gathered}
        return Statistics(layers, inputs.gathered)

    def kept(self, name: str) -> Mapping[str, Tensor] | None:
        found = self._unfinished.kept(name) if self._unfinished else None
        if found and PASSES in found.metadata:  # those of the process that was killed count, too
            forward, backward = json.loads(found.metadata[PASSES])
            self.forward_passes = max(self.forward_passes, forward)
            self.backward_passes = max(self.backward_passes, backward)
        return found

    def keep(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        if self._unfinished:
            passes = json.dumps([self.forward_passes, self.backward_passes])
            self._unfinished.keep(name, tensors, {PASSES: passes})

    def note(self, name: str, content: Any) -> None:
        self.details[name] = content

    def num_steps(self, task: str, epochs: int | None = None, batch_size: int | None = None) -> int:
        return self._trained_by().num_steps(task, len(self._images[task]), epochs, batch_size)

    def fine_tune(
        self,
        task: str,
        weights: Mapping[str, Tensor],
        *,
        steps: int,
        first: int = 0,
        name: str,
        constant: bool = False,
        **changes: Any,
    ) -> dict[str, Tensor]:
        training, labels = self._trained_by(), self.labels(task)
        found, passed = training.fine_tune(
            self._visual, weights, self._heads[task], Split(self._images[task], labels.cpu()),
            steps=steps, first=first, name=name, constant=constant, changes=changes,
        )  # fmt: skip
        self.forward_passes += passed
        self.backward_passes += passed
        return found

    def report(self, name: str, step: int, vector: Mapping[str, Tensor]) -> None:
        if self._reports and (content := self._reports.add(name, step, vector)):
            self.note(name, content)

    def _trained_by(self) -> Training:
        if self._training is None:
            raise ValueError("the method fine-tunes, and its yaml does not say fine_tunes: true.")
        return self._training

    def _counted(self, result: Tensor, images: float) -> Tensor:
        self.forward_passes += images
        if result.requires_grad:
            self.backward_passes += images
        return result
