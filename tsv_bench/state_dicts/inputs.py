"""The checkpoints that a command is given: opened, compared and checked before any work."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from tsv_bench.escaping import check_name
from tsv_bench.files.content import repeated
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.state_dicts.integrity import Hashes, check_contents
from tsv_bench.state_dicts.open_vectors import cache_key, open_task_vector
from tsv_bench.state_dicts.state_dict import CachedReads, StateDict, open_state_dict
from tsv_bench.task_vectors.lazy import LazyMapping
from tsv_bench.task_vectors.task_vector import TaskVector, is_changed

log = logging.getLogger(__name__)

Opened = TypeVar("Opened")
ANCESTOR = "base"  # what commands call the instruct model's ancestor


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A pretrained checkpoint, fine-tuned ones by task, and their task vectors.

    ``ancestor``: what an instruct model, which then is the pretrained one, was made from.
    ``instruction``: the instruct model minus this ancestor.
    """

    base: StateDict
    finetuned: Mapping[str, StateDict]
    vectors: Mapping[str, TaskVector]
    device: str
    ancestor: StateDict | None = None
    instruction: TaskVector | None = None

    @property
    def states(self) -> dict[str, StateDict]:
        """Every checkpoint by its task, the pretrained one as "pretrained", its ancestor "base"."""
        ancestor = {} if self.ancestor is None else {ANCESTOR: self.ancestor}
        return {"pretrained": self.base, **ancestor, **self.finetuned}


def open_inputs(
    pretrained: Path | str,
    finetuned: Mapping[str, Path | str],
    device: str = "cpu",
    ancestor: Path | str | None = None,
) -> Inputs:
    """Open the checkpoints and compare their names, shapes and dtypes; nothing else is read.

    ``ancestor``: see `Inputs`. Raises ValueError or OSError that names the checkpoint.
    """
    check_tasks(finetuned)
    if ancestor is not None and ANCESTOR in finetuned:
        raise ValueError(
            f"the task's name {ANCESTOR!r} is taken by the checkpoint that {ANCESTOR}= names. "
            f"Choose another."
        )
    base = CachedReads(_named("pretrained", partial(open_state_dict, pretrained)))
    states = {
        task: _named(task, partial(open_state_dict, path)) for task, path in finetuned.items()
    }
    vectors = {
        task: _named(task, partial(open_task_vector, base, state, device))
        for task, state in states.items()
    }
    inputs = Inputs(base=base, finetuned=states, vectors=vectors, device=device)
    if ancestor is None:
        return inputs
    own = _named(ANCESTOR, partial(open_state_dict, ancestor))
    check_ancestor(own, base)
    return replace(inputs, ancestor=own, instruction=TaskVector(own, base, device))


def check_ancestor(ancestor: StateDict, instruct: StateDict) -> None:
    """Raise ValueError unless both have the same parameters: names, shapes, kinds of numbers."""
    both = f"{ANCESTOR} {ancestor.path} and pretrained {instruct.path}"
    hint = f"{ANCESTOR}= is what the instruct model, pretrained=, was made from."
    if odd := set(ancestor) ^ set(instruct):
        first = min(odd)
        where = ANCESTOR if first in ancestor else "pretrained"
        raise ValueError(
            f"{both} have different parameters: {len(odd)} appear in only one of them, first "
            f"{first!r} in {where}. {hint}"
        )
    for name in instruct:
        shapes = tuple(ancestor.shape(name)), tuple(instruct.shape(name))
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{both} have other shapes: {name!r} is {shapes[0]} in {ANCESTOR} and {shapes[1]} "
                f"in pretrained. Has one of them more tokens? {hint}"
            )
        types = ancestor.dtype(name), instruct.dtype(name)
        if types[0].is_floating_point != types[1].is_floating_point:
            raise ValueError(
                f"{both} cannot be subtracted: {name!r} is {types[0]} in {ANCESTOR} and {types[1]} "
                f"in pretrained. Is one of them quantized? {hint}"
            )


def check_inputs(
    inputs: Inputs, factors: FactorCache | None, done: Callable[[], object]
) -> tuple[Inputs, dict[str, Hashes]]:
    """Read all checkpoints once; return the inputs, now with the factor cache, and the hashes.

    ``done`` is called after each checkpoint. Raises ValueError for a value that is not finite, and
    if no task changed anything; logs a warning for a task that did not.
    """
    hashes = check_contents(inputs.states, done)
    check_deltas(inputs)
    warn_of_repeated(inputs, hashes)
    vectors = inputs.vectors
    if factors is not None:
        own = hashes["pretrained"].values()
        vectors = {
            task: open_task_vector(
                inputs.base, state, inputs.device, factors, cache_key(*own, *hashes[task].values())
            )
            for task, state in inputs.finetuned.items()
        }
    return replace(inputs, vectors=vectors), hashes


def check_deltas(inputs: Inputs) -> None:
    """Raise ValueError if no task changed anything, or if an ancestor equals the instruct model.

    Logs a warning for a task that changed nothing.
    """
    check_changes(inputs.vectors, f"the pretrained one at {inputs.base.path}")
    if inputs.instruction is not None and not _changed(inputs.instruction):
        raise ValueError(
            f"{ANCESTOR} {inputs.ancestor.path} equals pretrained {inputs.base.path}: there is no "
            f"instruction vector. {ANCESTOR}= is the model before instruction tuning, pretrained= "
            f"the one after it, from which tasks were fine-tuned."
        )


def warn_of_repeated(inputs: Inputs, hashes: Mapping[str, Hashes]) -> None:
    """Log a warning for each checkpoint that is there several times."""
    for tasks in repeated({task: tuple(hashes[task].values()) for task in inputs.finetuned}):
        log.warning(f"{' and '.join(tasks)} are the same checkpoint: it counts {len(tasks)} times.")


def check_tasks(finetuned: Mapping[str, Path | str]) -> None:
    """Raise ValueError unless there is a task and every task's name can be a file's name."""
    if not finetuned:
        raise ValueError("no fine-tuned checkpoints: give at least one, as in {cars: cars.pt}.")
    for task in finetuned:
        if task == "pretrained":
            raise ValueError("the task's name 'pretrained' is taken. Choose another.")
        check_name(task, "the task's name")


def check_changes(vectors: Mapping[str, LazyMapping], pretrained: str) -> None:
    """Raise ValueError if no task changed anything; log a warning for a task that did not.

    ``pretrained`` names the pretrained checkpoint.
    """
    same = [task for task, vector in vectors.items() if not _changed(vector)]
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


def _changed(vector: LazyMapping) -> bool:
    """Return whether any entry is not zero."""
    # Small layers first: most ways of fine-tuning change one, and it is read quickly.
    by_size = sorted(vector, key=lambda name: vector.shape(name).numel())
    return any(is_changed(vector, name) for name in by_size)
