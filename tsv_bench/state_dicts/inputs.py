"""The checkpoints that a command is given: opened, compared and checked before any work."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from tsv_bench.files.content import repeated
from tsv_bench.state_dicts.adapters.adapted import as_whole, open_checkpoint
from tsv_bench.state_dicts.adapters.adapter import is_adapter
from tsv_bench.state_dicts.adapters.inputs import check_whole, config_hash, warn_of_other_bases
from tsv_bench.state_dicts.entries.agree import ANCESTOR, agree, as_paired, check_ancestor
from tsv_bench.state_dicts.entries.choices import Choices
from tsv_bench.state_dicts.entries.quantized import check_integers, check_unscaled, named
from tsv_bench.state_dicts.entries.ties import tied_pairs
from tsv_bench.state_dicts.entries.views import View
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.state_dicts.integrity import Hashes, check_contents
from tsv_bench.state_dicts.low_rank import is_compressed
from tsv_bench.state_dicts.masked import is_masked
from tsv_bench.state_dicts.open_vectors import cache_key, open_task_vector
from tsv_bench.state_dicts.state_dict import CachedReads, StateDict
from tsv_bench.task_vectors.lazy import LazyMapping
from tsv_bench.task_vectors.task_vector import TaskVector, infinite_alike, is_changed
from tsv_bench.wording.escaping import check_name

log = logging.getLogger(__name__)

Opened = TypeVar("Opened")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A pretrained checkpoint, fine-tuned ones by task, and their task vectors.

    ``stand_in``: the task whose checkpoint stands in for the pretrained one, if there is none.

    ``ancestor``: what an instruct model, which then is the pretrained one, was made from.
    ``instruction``: the instruct model minus this ancestor.
    """

    base: StateDict  # with the layout of outputs, and what they hold of entries not merged
    finetuned: Mapping[str, StateDict]  # under the names of ``base``
    pretrained: StateDict  # the entries of ``base`` that vectors have, and integers
    vectors: Mapping[str, TaskVector]
    device: str
    ancestor: StateDict | None = None
    instruction: TaskVector | None = None
    stand_in: str | None = None
    how: tuple[str, ...] = ()  # what else than their files makes the values of ``finetuned``
    tied: Mapping[str, str] = field(default_factory=dict)  # name -> the one that it is a copy of

    @property
    def states(self) -> dict[str, StateDict]:
        """Every checkpoint by its task, the pretrained one as "pretrained", its ancestor "base".

        They are as their files have them. One that stands in for another is there once.
        """
        ancestor = {} if self.ancestor is None else {ANCESTOR: self.ancestor}
        states = {self.pretrained_key: self.base, **ancestor}
        states |= {k: state for k, state in self.finetuned.items() if k != self.stand_in}
        return {key: state.stored for key, state in states.items()}

    @property
    def pretrained_key(self) -> str:
        """What the pretrained checkpoint is called among `states`."""
        return self.stand_in or "pretrained"

    def once_each(self) -> "Inputs":
        """Return the inputs whose vectors have each entry once, of those that are tied.

        What is drawn at random for an entry is then drawn once, and tied entries stay tied.
        """
        plain = [task for task, vector in self.vectors.items() if type(vector) is TaskVector]
        if len(plain) < len(self.vectors):
            return self
        tied = tied_pairs([self.pretrained, *self.finetuned.values()], self.pretrained)
        if not tied:
            return self
        log.info(f"{named(tied)}: tied to {named(set(tied.values()))}, and stay so.")
        pretrained = View(self.pretrained, {n: n for n in self.pretrained if n not in tied})
        return with_vectors(replace(self, pretrained=pretrained, tied=tied))

    def alike(self, key: str, stored: str, start: int, rows: Tensor) -> bool:
        """Return whether rows of a file that are not finite are the same in the others.

        Those of a task are compared with the pretrained ones, and these with all tasks.
        """
        own = self.base if key == self.pretrained_key else self.finetuned.get(key)
        name = own.seen_as(stored) if own is not None else None
        if name is None or name not in self.pretrained:
            return False
        others = (
            [self.pretrained]
            if key != self.pretrained_key
            else [state for state in self.finetuned.values() if name in state]
        )
        stop = start + (len(rows) if rows.ndim else 1)
        return all(
            bool((infinite_alike(rows, other.rows(name, start, stop)) | rows.isfinite()).all())
            for other in others
        )


def open_inputs(
    pretrained: Path | str | StateDict | None,
    finetuned: Mapping[str, Path | str | StateDict],
    device: str = "cpu",
    ancestor: Path | str | None = None,
    choices: Choices = Choices(),  # noqa: B008, it is frozen
) -> Inputs:
    """Open the checkpoints and compare their names, shapes and dtypes.

    Without ``pretrained`` the first fine-tuned one stands in for it. Of values only those are read
    that may be copies of others in their file. ``ancestor``: see `Inputs`. Raises ValueError or
    OSError that names the checkpoint.
    """
    check_tasks(finetuned)
    choices.check(finetuned)
    if ancestor is not None and ANCESTOR in finetuned:
        raise ValueError(
            f"the task's name {ANCESTOR!r} is taken by the checkpoint that {ANCESTOR}= names. "
            f"Choose another."
        )
    stand_in = None if pretrained is not None else next(iter(finetuned))
    pretrained = finetuned[stand_in] if stand_in else pretrained
    base = CachedReads(_named(stand_in or "pretrained", partial(open_checkpoint, pretrained)))
    check_whole(base)
    states = {
        task: base if task == stand_in else _named(task, partial(open_checkpoint, path, pretrained))
        for task, path in finetuned.items()
    }
    packed = [task for task, state in states.items() if is_packed(state)]
    if stand_in and packed:
        raise ValueError(
            f"{packed[0]}: {states[packed[0]].path} holds a difference from the pretrained "
            f"checkpoint, which is not given: add pretrained=."
        )
    for name, state in {"pretrained": base, **states}.items():
        if name not in packed:
            _named(name, partial(check_unscaled, state))
    own = None
    if ancestor is not None:
        if choices.rest_from or choices.embeddings:
            raise ValueError(
                f"{ANCESTOR}= goes with neither rest_from= nor embeddings=: its entries are those "
                f"of the pretrained checkpoint."
            )
        own = as_paired(base, _named(ANCESTOR, partial(open_checkpoint, ancestor)))
        check_ancestor(own, base)
    agreed = agree(base, states, packed, choices)
    if agreed.is_partial and (adapters := [t for t in packed if is_adapter(states[t])]):
        for task in adapters:  # what it makes of the whole has parts
            states[task] = _named(task, partial(as_whole, base, states[task]))
        agreed = agree(base, states, {*packed} - {*adapters}, choices)
    agreed.say()
    inputs = Inputs(
        base=agreed.base,
        finetuned=agreed.finetuned,
        pretrained=agreed.pretrained,
        vectors={},
        device=device,
        ancestor=own,
        stand_in=stand_in,
        how=agreed.how,
    )
    return with_vectors(inputs)


def is_packed(state: StateDict) -> bool:
    """Return whether a file holds what is to be unpacked by the pretrained checkpoint."""
    return is_compressed(state) or is_masked(state) or is_adapter(state)


def with_vectors(
    inputs: Inputs,
    factors: FactorCache | None = None,
    hashes: Mapping[str, Hashes] | None = None,
) -> Inputs:
    """Return the inputs with the vectors of their ``pretrained`` entries, lazily.

    ``factors``: a cache of their triplets, found by the ``hashes``. Raises ValueError that names
    the task.
    """
    pretrained = inputs.pretrained
    packed = [task for task, state in inputs.finetuned.items() if is_packed(state)]
    if packed and (len(pretrained) < len(inputs.base) or inputs.how):
        raise ValueError(
            f"{packed[0]} is compressed against all of the pretrained checkpoint, of which only a "
            f"part is merged, or with other rows. Give {packed[0]} as a whole checkpoint."
        )

    def vector(task: str) -> TaskVector:
        state = inputs.finetuned[task]
        if task not in packed and len(state) > len(pretrained):
            state = View(state, {name: name for name in pretrained})
        both = () if factors is None else (inputs.pretrained_key, task)
        own = [sha256 for key in both for sha256 in hashes[key].values()]
        key = cache_key(*own, *inputs.how) if own else ""
        return open_task_vector(pretrained, state, inputs.device, factors, key)

    vectors = {task: _named(task, partial(vector, task)) for task in inputs.finetuned}
    warn_of_other_bases(vectors)
    instruction = None
    if inputs.ancestor is not None:
        own = View(inputs.ancestor, {name: name for name in pretrained})
        instruction = TaskVector(own, pretrained, inputs.device)
    return replace(inputs, vectors=vectors, instruction=instruction)


def check_inputs(
    inputs: Inputs, factors: FactorCache | None, done: Callable[[], object]
) -> tuple[Inputs, dict[str, Hashes]]:
    """Read all checkpoints once; return the inputs, now with the factor cache, and the hashes.

    ``done`` is called after each checkpoint. Raises ValueError for a value that is not finite, and
    if no task changed anything; logs a warning for a task that did not.
    """
    hashes = check_contents(inputs.states, done, inputs.alike)
    hashes = {key: hashes[key] | config_hash(state) for key, state in inputs.states.items()}
    check_deltas(inputs)
    warn_of_repeated(inputs, hashes)
    if factors is not None:
        inputs = with_vectors(inputs, factors, hashes)
    return inputs, hashes


def check_deltas(inputs: Inputs) -> None:
    """Raise ValueError if integers differ, no task changed anything, or an ancestor changed none.

    Logs a warning for a task that changed nothing.
    """
    check_integers(inputs.pretrained, inputs.finetuned)
    if inputs.stand_in is not None:
        others = (vector for task, vector in inputs.vectors.items() if task != inputs.stand_in)
        if not any(map(_changed, others)):
            raise ValueError(
                f"{', '.join(inputs.vectors)} are all the same: there is nothing to merge."
            )
        return
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


def check_tasks(finetuned: Mapping[str, object]) -> None:
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
