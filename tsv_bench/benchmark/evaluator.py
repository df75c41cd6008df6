"""Top-1 accuracy of served vectors, image by image."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from tsv_bench.data import Split
from tsv_bench.methods.bench import Linear
from tsv_bench.methods.forms import Served, as_served
from tsv_bench.models import Backbone, class_token_only, normalize
from tsv_bench.models.accuracy import correct_in_batches
from tsv_bench.models.devices import (
    autocast,
    batch_sizes,
    device_batches,
    state_on_device,
    with_smaller_batches,
)
from tsv_bench.models.forward.linear_layers import features_by
from tsv_bench.models.spread import Spread
from tsv_bench.task_vectors import task_vector


class Evaluator:
    """Evaluates served vectors in one working copy of a backbone's image tower."""

    def __init__(
        self,
        backbone: Backbone,
        heads: Mapping[str, Tensor],
        device: str,
        *,
        batch_size: int | None = None,
        precision: str | None = None,
    ) -> None:
        self._visual = copy.deepcopy(backbone.visual).to(device).eval()
        self._heads = {task: head.to(device) for task, head in heads.items()}
        self._device = device
        # Those that did not fit are not tried again.
        self._sizes = batch_sizes(batch_size, device, backbone.visual)
        self._cast = autocast(precision, device)
        self._pretrained = state_on_device(backbone.pretrained, device)
        self._layers: Mapping[str, Tensor] | None = None  # the vector that was loaded last
        self._moved: Mapping[str, Tensor] = {}  # its copy on the device
        self._computing: AbstractContextManager = nullcontext()  # of what a task is served

    def correct(
        self,
        served: Mapping[str, Mapping],
        alpha: float,
        splits: Mapping[str, Split],
        done: Callable[[], object] = lambda: None,
    ) -> dict[str, np.ndarray]:
        """Return task -> which images are classified correctly, bool [images].

        Each task is evaluated with pretrained + alpha * served[task], and its adapter if it has
        one. ``done`` is called after every task.
        """
        correct = {}
        for task, hits in self.correct_in_turn(served, alpha, splits.items()):
            correct[task] = hits
            done()
        return correct

    def correct_in_turn(
        self,
        served: Mapping[str, Mapping],
        alpha: float,
        splits: Iterable[tuple[str, Split]],
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield each task with which of the images beside it are classified correctly.

        What tasks one after another are served alike is loaded once.
        """
        served, loaded = as_served(served), None
        for task, split in splits:
            hits, loaded = self._correct(served, alpha, task, split, loaded)
            yield task, hits

    def load(self, layers: Mapping[str, Tensor]) -> None:
        """Take pretrained + layers, for `features` and `forward`; {} is the pretrained network."""
        state = {name: param.clone() for name, param in self._pretrained.items()}
        for name, layer in layers.items():
            state[name] += layer.to(self._device)
        self._visual.load_state_dict(state)

    def head(self, task: str) -> Tensor:
        """Return a task's head [classes, dim]."""
        return self._heads[task].float()

    @torch.inference_mode()
    def batches(
        self, images: Tensor, run: Callable[[Tensor, slice], Tensor]
    ) -> Shaped[Tensor, "images ..."]:
        """Return what ``run`` gives of batches and of the rows that they are, one after another."""

        def all_of(size: int) -> Tensor:
            results, start = [], 0
            for batch in device_batches(images, size, self._device):
                results.append(run(batch, slice(start, start + len(batch))))
                start += len(batch)
            return torch.cat(results)

        found, size = with_smaller_batches(all_of, self._sizes, self._device)
        self._sizes = self._sizes[self._sizes.index(size) :]
        return found

    def features(self, images: Tensor) -> Float[Tensor, "images dim"]:
        """Return the features of images in float32, not normalized, on the device."""
        with class_token_only(self._visual):
            return self.batches(images, lambda batch, _: self.forward(batch))

    def forward(self, images: Tensor, linear: Linear | None = None) -> Float[Tensor, "images dim"]:
        """Return the features of a batch on the device; ``linear`` as in `features_by`."""
        with self._cast():
            if linear is None:
                return self._visual(normalize(images, self._visual)).float()
            weights = dict(self._visual.named_parameters())
            return features_by(
                self._visual, weights, normalize(images, self._visual), linear
            ).float()

    def _correct(
        self, served: Served, alpha: float, task: str, split: Split, loaded: Mapping | None
    ) -> tuple[np.ndarray, Mapping]:
        """Return which images are classified correctly, and the vector that is loaded now.

        ``loaded``: the one that was loaded before with this alpha.
        """
        vector = served[task]
        if vector is not loaded:  # one vector served to all is loaded once
            self._load(served, task, alpha)
        with self._computing:
            adapter = served.adapter(task)
        run = partial(
            correct_in_batches, self._visual, self._heads[task], split, self._device,
            self._cast, adapt=adapter and adapter.to(self._device),
        )  # fmt: skip
        hits, size = with_smaller_batches(run, self._sizes, self._device)
        self._sizes = self._sizes[self._sizes.index(size) :]
        return hits, vector

    def _load(self, served: Served, task: str, alpha: float) -> None:
        with self._computing:
            layers = served.layers(task)
        if layers is not self._layers:  # thirty alphas need only one copy to the device
            self._moved = {}
            self._moved, self._layers = state_on_device(layers, self._device), layers
        self._visual.load_state_dict(task_vector.apply(self._pretrained, self._moved, alpha))


class SeveralDevices(Evaluator):
    """An evaluator that spreads tasks over devices, each with a working copy of its own.

    Accuracies are those of one device of the kind: a task's images go through it in the same
    batches. What is not by task, as the choices of a router, the first device does alone.
    """

    def __init__(
        self, backbone: Backbone, heads: Mapping[str, Tensor], devices: Sequence[str], **how: Any
    ) -> None:
        super().__init__(backbone, heads, devices[0], **how)
        others = [Evaluator(backbone, heads, device, **how) for device in devices[1:]]
        self._each, self._spread = [self, *others], Spread(devices)
        for one in self._each:
            one._computing = self._spread.alone
            one._cast = partial(self._checked, one._cast)

    def correct(
        self,
        served: Mapping[str, Mapping],
        alpha: float,
        splits: Mapping[str, Split],
        done: Callable[[], object] = lambda: None,
    ) -> dict[str, np.ndarray]:
        """As `Evaluator.correct`; the longest tasks begin first, so that none is late alone."""
        order = sorted(splits.items(), key=lambda item: -len(item[1]))
        correct = {}
        for number, hits in self._run(served, alpha, order):
            correct[order[number][0]] = hits
            done()
        return {task: correct[task] for task in splits}

    def correct_in_turn(
        self,
        served: Mapping[str, Mapping],
        alpha: float,
        splits: Iterable[tuple[str, Split]],
    ) -> Iterator[tuple[str, np.ndarray]]:
        """As `Evaluator.correct_in_turn`; splits are taken ahead, as many as there are devices."""
        tasks: list[str] = []

        def taken() -> Iterator[tuple[str, Split]]:
            for task, split in splits:
                tasks.append(task)
                yield task, split

        ended, following = {}, 0
        for number, hits in self._run(served, alpha, taken()):
            ended[number] = hits
            while following in ended:
                yield tasks[following], ended.pop(following)
                following += 1

    def _run(
        self,
        served: Mapping[str, Mapping],
        alpha: float,
        splits: Iterable[tuple[str, Split]],
    ) -> Iterator[tuple[int, np.ndarray]]:
        served, loaded = as_served(served), dict[int, Mapping]()

        def work(device: int, piece: tuple[str, Split]) -> np.ndarray:
            hits, loaded[device] = self._each[device]._correct(
                served, alpha, *piece, loaded.get(device)
            )
            return hits

        return self._spread.run(work, splits, name=lambda piece: piece[0])

    def _checked(self, cast: Callable[[], AbstractContextManager]) -> AbstractContextManager:
        self._spread.check()
        return cast()


@dataclass(frozen=True)
class Evaluation:
    """How images are evaluated and alpha is searched; the values of conf's ``evaluation``."""

    devices: tuple[str, ...]
    batch_size: int | None
    precision: str
    patience: int | None

    @property
    def device(self) -> str:
        """The one for what is not spread."""
        return self.devices[0]

    @property
    def settings(self) -> dict[str, Any]:
        """The values that may change a result."""
        return {"precision": self.precision, "patience": self.patience}

    def evaluator(self, backbone: Backbone, heads: Mapping[str, Tensor]) -> Evaluator:
        how = {"batch_size": self.batch_size, "precision": self.precision}
        used = self.devices[: max(1, len(heads))]
        if len(used) == 1:
            return Evaluator(backbone, heads, *used, **how)
        return SeveralDevices(backbone, heads, used, **how)
