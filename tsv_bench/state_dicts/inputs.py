"""The checkpoints that a command is given: opened, compared and checked before any work."""

import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from tsv_bench.escaping import check_name
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.state_dicts.integrity import Hashes, check_contents
from tsv_bench.state_dicts.open_vectors import cache_key, open_task_vector
from tsv_bench.state_dicts.state_dict import CachedReads, StateDict, open_state_dict
from tsv_bench.task_vectors.lazy import LazyMapping
from tsv_bench.task_vectors.task_vector import TaskVector, is_changed

log = logging.getLogger(__name__)

Opened = TypeVar("Opened")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A pretrained checkpoint, fine-tuned ones by task, and their task vectors."""

    base: StateDict
    finetuned: Mapping[str, StateDict]
    vectors: Mapping[str, TaskVector]
    device: str

    @property
    def states(self) -> dict[str, StateDict]:
        """Every checkpoint by its task, and the pretrained one as "pretrained"."""
        return {"pretrained": self.base, **self.finetuned}


def open_inputs(
    pretrained: Path | str, finetuned: Mapping[str, Path | str], device: str = "cpu"
) -> Inputs:
    """Open the checkpoints and compare their names, shapes and dtypes; nothing else is read.

    Raises ValueError or OSError that names the checkpoint.
    """
    check_tasks(finetuned)
    base = CachedReads(_named("pretrained", partial(open_state_dict, pretrained)))
    states = {
        task: _named(task, partial(open_state_dict, path)) for task, path in finetuned.items()
    }
    vectors = {
        task: _named(task, partial(open_task_vector, base, state, device))
        for task, state in states.items()
    }
    return Inputs(base=base, finetuned=states, vectors=vectors, device=device)


def check_inputs(
    inputs: Inputs, factors: FactorCache | None, done: Callable[[], object]
) -> tuple[Inputs, dict[str, Hashes]]:
    """Read all checkpoints once; return the inputs, now with the factor cache, and the hashes.

    ``done`` is called after each checkpoint. Raises ValueError for a value that is not finite, and
    if no task changed anything; logs a warning for a task that did not.
    """
    hashes = check_contents(inputs.states, done)
    check_changes(inputs.vectors, f"the pretrained one at {inputs.base.path}")
    for tasks in repeated({task: tuple(hashes[task].values()) for task in inputs.finetuned}):
        log.warning(f"{' and '.join(tasks)} are the same checkpoint: it counts {len(tasks)} times.")
    vectors = inputs.vectors
    if factors is not None:
        own = hashes["pretrained"].values()
        vectors = {
            task: open_task_vector(
                inputs.base, state, inputs.device, factors, cache_key(*own, *hashes[task].values())
            )
            for task, state in inputs.finetuned.items()
        }
    checked = Inputs(
        base=inputs.base, finetuned=inputs.finetuned, vectors=vectors, device=inputs.device
    )
    return checked, hashes


def check_tasks(finetuned: Mapping[str, Path | str]) -> None:
    """Raise ValueError unless there is a task and every task's name can be a file's name."""
    if not finetuned:
        raise ValueError("no fine-tuned checkpoints: give at least one, as in {cars: cars.pt}.")
    for task in finetuned:
        if task == "pretrained":
            raise ValueError("the task's name 'pretrained' is taken. Choose another.")
        check_name(task, "the task's name")


def repeated(contents: Mapping[str, Hashable]) -> list[list[str]]:
    """Return the tasks whose checkpoints have the same content, those of one content together."""
    tasks_of: dict[Hashable, list[str]] = {}
    for task, content in contents.items():
        tasks_of.setdefault(content, []).append(task)
    return [tasks for tasks in tasks_of.values() if len(tasks) > 1]


def check_changes(vectors: Mapping[str, LazyMapping], pretrained: str) -> None:
    """Raise ValueError if no task changed anything; log a warning for a task that did not.

    ``pretrained`` names the pretrained checkpoint.
    """
    same = [
        task
        for task, vector in vectors.items()
        # Small layers first: most ways of fine-tuning change one, and it is read quickly.
        if not any(is_changed(vector, name) for name in _by_size(vector))
    ]
    if len(same) == len(vectors):
        raise ValueError(
            f"every fine-tuned checkpoint equals {pretrained}: there is nothing to merge. Was the "
            f"same file given twice?"
        )
    for task in same:
        log.warning(f"{task} equals the pretrained checkpoint: it changes nothing.")


def _named(name: str, open_one: Callable[[], Opened]) -> Opened:
    """Call ``open_one`` and put the checkpoint's name before its errors."""
    try:
        return open_one()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except OSError as error:
        raise type(error)(f"{name}: {error}") from error


def _by_size(vector: LazyMapping) -> list[str]:
    return sorted(vector, key=lambda name: vector.shape(name).numel())
