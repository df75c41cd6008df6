"""Rounds of fine-tuning each task from one model and merging what the tasks changed, for ATM.

After every task and every round the bench keeps what a killed process would have to do again. In
memory are the vector so far, the model that a round starts from, one model in training, and the sum
of changes; with another merge than the mean, the tasks' changes lie on disk.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tsv_bench.linalg.precision import all_finite
from tsv_bench.methods.bench import Bench
from tsv_bench.task_vectors.lazy import OtherLayers
from tsv_bench.task_vectors.streaming import gather, stream, watched
from tsv_bench.task_vectors.task_vector import apply

REPORT = "rounds"  # under which the accuracy of each round is noted
MARK = "tsv_bench.round"  # beside the layers that are kept: of which round, and of how many tasks


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a round does: see `atm`."""

    rounds: int
    epochs: int | None
    steps: int | None
    alpha: float | int
    merge: Callable[[Mapping], Mapping] | None  # None: the mean
    batch_size: int | None
    constant: bool
    changes: Mapping[str, Any] = field(default_factory=dict)  # of the recipe

    def batches(self, bench: Bench, task: str, number: int) -> tuple[int, int]:
        """Return how many batches of a task a round takes, and how many the rounds before took.

        With neither epochs nor steps those of the task's own fine-tuning are shared among rounds.
        """
        if self.steps is None and self.epochs is None:
            total = bench.num_steps(task, None, self.batch_size)
            first, end = (total * n // self.rounds for n in (number, number + 1))
            return end - first, first
        steps = self.steps or bench.num_steps(task, self.epochs, self.batch_size)
        return steps, steps * number


class Kept(OtherLayers):
    """Layers that were kept, on a device, without the mark of their round."""

    def __init__(self, layers: Mapping, device: str) -> None:
        super().__init__(layers)
        self._device = device

    @property
    def names(self) -> Collection[str]:
        return [name for name in super().names if name != MARK]

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        return super().rows(name, start, stop).to(self._device)

    def __getitem__(self, name: str) -> Tensor:
        return super().__getitem__(name).to(self._device)


def keep(bench: Bench, name: str, layers: Mapping[str, Tensor], mark: Sequence[int]) -> None:
    """Keep layers on disk, with a mark of how far the work was."""
    bench.keep(name, {**layers, MARK: torch.tensor(mark)})


def kept(bench: Bench, name: str) -> tuple[Kept, list[int]] | None:
    """Return layers that were kept, read on access, and their mark; None if there are none."""
    found = bench.kept(name)
    return None if found is None else (Kept(found, bench.device), found[MARK].tolist())


class Mean:
    """The mean of the tasks' changes: one sum, to which they are added in turn."""

    NAME = "sum of changes"

    def __init__(self, bench: Bench) -> None:
        self._bench, self._count = bench, 0
        self._sum: dict[str, Tensor] = {}

    def begin(self, number: int, tasks: Sequence[str]) -> int:
        """Begin a round; return how many of its tasks were added before the process was killed."""
        self._count, self._sum = 0, {}
        found = kept(self._bench, self.NAME)
        if found and found[1][0] == number:
            self._count = found[1][1]
            self._sum = dict(found[0])
        return self._count

    def add(self, number: int, change: Mapping[str, Tensor]) -> None:
        """Add the changes of the next task."""
        for name, layer in change.items():
            # One after another, as torch sums fewer than sixteen: weight_average's, to the bit.
            self._sum[name] = self._sum[name] + layer if self._count else layer
        self._count += 1
        keep(self._bench, self.NAME, self._sum, (number, self._count))

    def merged(self) -> dict[str, Tensor]:
        """Return the mean of what was added."""
        return {name: layer / self._count for name, layer in self._sum.items()}


class ByMethod:
    """What a method merges of the tasks' changes, which are read from disk layer by layer."""

    def __init__(self, bench: Bench, merge: Callable[[Mapping], Mapping]) -> None:
        self._bench, self._merge = bench, merge
        self._tasks: Sequence[str] = ()
        self._changes: list[Mapping[str, Tensor]] = []

    def begin(self, number: int, tasks: Sequence[str]) -> int:
        """Begin a round; return how many of its tasks were added before the process was killed."""
        self._tasks, self._changes = tasks, []
        for index in range(len(tasks)):
            found = kept(self._bench, self._name(index))
            if found is None or found[1][0] != number:
                break
            self._changes.append(found[0])
        return len(self._changes)

    def add(self, number: int, change: Mapping[str, Tensor]) -> None:
        """Add the changes of the next task."""
        name = self._name(len(self._changes))
        keep(self._bench, name, change, (number,))
        found = kept(self._bench, name)  # None on a full disk: then they stay in memory
        self._changes.append(found[0] if found and found[1][0] == number else change)

    def merged(self) -> dict[str, Tensor]:
        """Return the vector that the method serves to all tasks."""
        served = self._merge(dict(zip(self._tasks, self._changes, strict=True)))
        return gather(stream(next(iter(served.values()))))

    @staticmethod
    def _name(index: int) -> str:
        return f"change {index}"  # a task's name may be too long for a file's


class Rounds:
    """Tune all tasks from the current model and merge, round after round."""

    NAME = "vector"

    def __init__(
        self, bench: Bench, tasks: Sequence[str], names: Sequence[str], plan: Plan
    ) -> None:
        """``names``: the layers of the vector that is served."""
        self._bench, self._tasks, self._names, self._plan = bench, tasks, names, plan
        self._round = Mean(bench) if plan.merge is None else ByMethod(bench, plan.merge)

    def vector(self, start: Callable[[], Mapping]) -> dict[str, Tensor]:
        """Return the vector after the last round. ``start`` gives that before the first.

        Raises ValueError if a training diverges.
        """
        bench, plan = self._bench, self._plan
        number, vector = self._begin(start)
        bench.report(REPORT, number, vector)
        done = self._round.begin(number, self._tasks) if number < plan.rounds else 0
        todo = [(n, task) for n in range(number, plan.rounds) for task in self._tasks][done:]
        weights = apply(bench.pretrained, vector, 1.0)
        if done == len(self._tasks):  # killed between the last task and the merge
            number, vector = self._end(number, vector)
            weights = apply(bench.pretrained, vector, 1.0)
        for number, task in watched(todo, len(todo), "atm: tasks of all rounds"):
            self._round.add(number, self._tuned(number, task, weights))
            if task == self._tasks[-1]:
                number, vector = self._end(number, vector)
                weights = apply(bench.pretrained, vector, 1.0)
        return vector

    def _begin(self, start: Callable[[], Mapping]) -> tuple[int, dict[str, Tensor]]:
        """Return the number of rounds that are done, and the vector after them."""
        if found := kept(self._bench, self.NAME):
            layers, (number,) = found
            return number, {name: self._as_weights(name, layers[name]) for name in layers}
        layers = start()
        vector = {name: self._as_weights(name, layers[name]) for name in self._names}
        keep(self._bench, self.NAME, vector, (0,))
        return 0, vector

    def _as_weights(self, name: str, layer: Tensor) -> Tensor:
        return layer.to(self._bench.pretrained[name])

    def _tuned(self, number: int, task: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what fine-tuning one task changes in the weights of a round."""
        plan = self._plan
        steps, first = plan.batches(self._bench, task, number)
        if steps == 0:
            return {name: torch.zeros_like(weights[name]) for name in self._names}
        found = dict(
            self._bench.fine_tune(
                task, weights, steps=steps, first=first, constant=plan.constant,
                name=f"{task}, round {number + 1} of {plan.rounds}", **plan.changes,
            )
        )  # fmt: skip
        change = {name: found.pop(name) - weights[name] for name in self._names}
        if not all(all_finite(layer) for layer in change.values()):
            raise ValueError(
                f"fine-tuning {task} in round {number + 1} of {plan.rounds} diverged: its weights "
                f"are no longer finite. Lower method.rate."
            )
        return change

    def _end(self, number: int, vector: Mapping[str, Tensor]) -> tuple[int, dict[str, Tensor]]:
        """Merge a round; return the number of the next one, and the vector that it starts from."""
        merged, alpha = self._round.merged(), self._plan.alpha
        moved = {name: layer + alpha * merged[name].to(layer) for name, layer in vector.items()}
        self._bench.report(REPORT, number + 1, moved)
        keep(self._bench, self.NAME, moved, (number + 1,))
        if number + 1 < self._plan.rounds:
            self._round.begin(number + 1, self._tasks)
        return number + 1, moved
