"""Top-1 accuracy of served vectors, image by image."""

import copy
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from torch import Tensor

from tsv_bench.data import Split
from tsv_bench.models import Backbone
from tsv_bench.models.accuracy import _correct_images
from tsv_bench.models.devices import autocast, batch_sizes, on_the_device, that_fits
from tsv_bench.task_vectors import task_vector
from tsv_bench.task_vectors.lazy import LazyVector
from tsv_bench.task_vectors.streaming import gather, stream


class Evaluator:
    """Serves vectors with one working copy of a backbone's image tower."""

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
        self._pretrained = on_the_device(backbone.pretrained, device)
        self.seconds_computing = 0.0  # of vectors that were served uncomputed
        self._vector: Mapping[str, Tensor] | None = None  # what was served last,
        self._moved: Mapping[str, Tensor] = {}  # and its copy on the device

    def correct(
        self,
        served: Mapping[str, Mapping[str, Tensor]],
        alpha: float,
        splits: Mapping[str, Split],
        done: Callable[[], object] = lambda: None,
    ) -> dict[str, np.ndarray]:
        """Per task, which images of its split are right with pretrained + alpha * served[task].

        ``done`` is called after every task.
        """
        correct, loaded = {}, None
        for task, split in splits.items():
            vector = served[task]
            if vector is not loaded:  # one vector served to all is loaded once
                self._load(vector, alpha)
                loaded = vector
            run = partial(
                _correct_images, self._visual, self._heads[task], split, self._device, self._cast
            )
            correct[task] = that_fits(run, self._sizes, self._device)
            done()
        return correct

    def _load(self, vector: Mapping[str, Tensor], alpha: float) -> None:
        if isinstance(vector, LazyVector):
            started = time.monotonic()
            vector = gather(stream(vector))
            self.seconds_computing += time.monotonic() - started
        if vector is not self._vector:  # thirty alphas: the way to the device is gone once
            self._moved = {}
            self._moved, self._vector = on_the_device(vector, self._device), vector
        self._visual.load_state_dict(task_vector.apply(self._pretrained, self._moved, alpha))
