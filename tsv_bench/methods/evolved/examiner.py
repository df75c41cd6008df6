"""Who asks a model the items: the images of a bench, or a command of the user's own."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from tsv_bench.methods.bench import Bench, check_fits
from tsv_bench.task_vectors.lazy import TaskVectors
from tsv_bench.task_vectors.task_vector import apply

AT_ONCE = 128  # images that pass through the network together
PRETRAINED = "pretrained"  # the name of the model to which vectors are added


@runtime_checkable
class Examiner(Protocol):
    """Asks models the items of some groups, such as the images of each task.

    A model is a name and a vector that is added to the pretrained weights. Under the names of the
    tasks and as `PRETRAINED` an examiner may know the models themselves, and need no vector.
    """

    seed: int
    asks_some: bool  # whether some items may be asked and no others, which takes less time

    def answers(
        self, name: str, vector: Mapping, items: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor] | None:
        """Return group -> which items were answered right, bool; of all items or of these rows.

        None, after a warning, if the model could not be asked.
        """

    def kept(self, name: str) -> Mapping[str, Tensor] | None:
        """As `Bench.kept`."""

    def keep(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """As `Bench.keep`."""

    def note(self, name: str, content: Any) -> None:
        """As `Bench.note`."""


class BenchExaminer:
    """Asks for the classes of the images of a bench; the groups are the tasks."""

    asks_some = True

    def __init__(self, bench: Bench, task_vectors: TaskVectors) -> None:
        """Raises ValueError for a task without images, or a layer that the network lacks."""
        check_fits(bench, task_vectors)
        self._bench, self._tasks, self.seed = bench, sorted(task_vectors), bench.seed
        self.kept, self.keep, self.note = bench.kept, bench.keep, bench.note

    @torch.no_grad()
    def answers(
        self, name: str, vector: Mapping, items: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        bench, found = self._bench, {}
        weights = apply(bench.pretrained, vector, 1.0)
        images, labels = {}, {}
        for task in self._tasks:
            images[task], labels[task] = bench.images(task), bench.labels(task)
            if items is not None:
                rows = items[task].to(images[task].device)
                images[task], labels[task] = images[task][rows], labels[task][rows]
        sizes = [len(images[task]) for task in self._tasks]
        batches = torch.cat([images[task] for task in self._tasks]).split(AT_ONCE)
        features = torch.cat([bench.features(weights, batch) for batch in batches])
        for task, of_task in zip(self._tasks, features.split(sizes), strict=True):
            found[task] = (bench.logits(task, of_task).argmax(dim=1) == labels[task]).cpu()
        return found
