"""Which entries of checkpoints are the same ones, and what becomes of those that not all have."""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from tsv_bench.state_dicts.entries.choices import Choices
from tsv_bench.state_dicts.entries.pairing import Pairing, check_pairing, pairing
from tsv_bench.state_dicts.entries.quantized import named
from tsv_bench.state_dicts.entries.views import Layout, View, mean_rows
from tsv_bench.state_dicts.state_dict import StateDict

log = logging.getLogger(__name__)

ANCESTOR = "base"  # what commands call the instruct model's ancestor


@dataclass(frozen=True, kw_only=True)
class Agreed:
    """Checkpoints under the names of one output, and the names of what all have."""

    base: StateDict  # what the output has of entries that are not merged; its layout
    finetuned: Mapping[str, StateDict]  # of each task the entries that all have
    shared: Collection[str]
    how: tuple[str, ...] = ()  # what else than their files makes the values under these names
    said: tuple[str, ...] = ()  # what was done to names and rows, a line each

    @property
    def is_partial(self) -> bool:
        """Whether the pretrained entries are not all merged, or not as they are."""
        return len(self.shared) < len(self.base) or bool(self.how)

    def say(self) -> None:
        """Log what was done."""
        for line in self.said:
            log.info(line)

    @property
    def pretrained(self) -> StateDict:
        """The pretrained entries that all have."""
        whole = len(self.shared) == len(self.base)
        return self.base if whole else View(self.base, {name: name for name in self.shared})


def agree(
    base: StateDict, finetuned: Mapping[str, StateDict], whole: Collection[str], choices: Choices
) -> Agreed:
    """Return the checkpoints under common names. Only what may be tied is read.

    ``whole``: tasks whose files are not looked into, compressed ones. Raises ValueError that
    names the task, both sides' entries, the reason as far as it is seen and what to do.
    """
    found = {}
    for task, state in finetuned.items():
        if task not in whole:
            found[task] = pairing(base, state)
            try:
                check_pairing(found[task], base, state, choices)
            except ValueError as error:
                raise ValueError(f"{task}: {error}") from error
    said = _lines(found)
    lost = {n for own in found.values() for n in base if n not in own.pairs or n in own.sizes}
    tokens = {name for own in found.values() for name in own.tokens}
    if choices.embeddings == "pretrained":
        lost |= tokens
    shared = [name for name in base if name not in lost]
    if not any(base.dtype(name).is_floating_point for name in shared) and lost:
        raise ValueError(
            f"the checkpoints share no weights: the pretrained one has {named(base)}, "
            f"{next(iter(finetuned))} has {named(next(iter(finetuned.values())))}. Are all of the "
            f"same backbone?"
        )
    base, views = _resized(base, finetuned, found, shared, sorted(tokens - lost), choices, said)
    how = tuple(f"{name}: {base.num_rows(name)} rows" for name in sorted(tokens - lost))
    if choices.shared_only and choices.rest_from in found:
        how = (*how, f"names of {choices.rest_from}")
        own = found[choices.rest_from]
        laid = _laid_out(base, views, finetuned[choices.rest_from], own, how)
        return replace(laid, said=tuple(said))
    return Agreed(base=base, finetuned=views, shared=shared, how=how, said=tuple(said))


def as_paired(base: StateDict, state: StateDict) -> StateDict:
    """Return a checkpoint under the names of ``base``, or as it is if it has not all of them."""
    own = pairing(base, state)
    if own.extra or len(own.pairs) < len(base):
        return state
    for line in _lines({str(state.path): own}):
        log.info(line)
    return View(state, {name: own.pairs[name] for name in base})


def _lines(found: Mapping[str, Pairing]) -> list[str]:
    """Return what was done to names, in one line for all tasks to which it was done."""
    lines: dict[str, list[str]] = {}
    for task, own in found.items():
        for line in own.said:
            lines.setdefault(line, []).append(task)
    return [f"{', '.join(tasks)}: {line}." for line, tasks in lines.items()]


def _resized(
    base: StateDict,
    finetuned: Mapping[str, StateDict],
    found: Mapping[str, Pairing],
    shared: Iterable[str],
    tokens: Collection[str],
    choices: Choices,
    said: list[str],
) -> tuple[StateDict, dict[str, StateDict]]:
    """Return the checkpoints under the pretrained names, with one number of rows for each token.

    Adds a line to ``said`` for each entry that has other rows then.
    """
    held = {name: [(finetuned[t], own.pairs[name]) for t, own in found.items()] for name in tokens}
    choose = max if choices.embeddings == "pad" else min
    num_rows = {
        name: choose(base.num_rows(name), *(state.num_rows(n) for state, n in states))
        for name, states in held.items()
    }
    for name, rows in num_rows.items():
        said.append(
            f"{name!r} has {rows} rows in the output, {base.num_rows(name)} in the pretrained "
            f"checkpoint. A config.json beside it may name the vocabulary's size."
        )
    if num_rows:

        def added(name: str, start: int, stop: int) -> Tensor:
            return mean_rows(held[name], start, stop)

        base = View(base, {name: name for name in base}, num_rows, added)
    views = dict(finetuned)
    for task, own in found.items():
        names = {name: own.pairs[name] for name in shared}
        if num_rows or any(n != o for n, o in names.items()) or len(names) < len(finetuned[task]):
            views[task] = View(finetuned[task], names, num_rows, partial(base.rows))
    return base, views


def _laid_out(
    base: StateDict,
    views: Mapping[str, StateDict],
    state: StateDict,
    own: Pairing,
    how: tuple[str, ...],
) -> Agreed:
    """Return the checkpoints in the layout and under the names of a task, which has the rest."""
    shared = set(next(iter(views.values())))
    names = {theirs: name for name, theirs in own.pairs.items() if name in shared}
    names |= {double: name for double, name in own.doubles.items() if name in shared}
    laid = Layout(state, View(base, names))
    return Agreed(
        base=laid,
        finetuned={other: View(view, names) for other, view in views.items()},
        shared=[name for name in laid if name in names],
        how=how,
    )


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
