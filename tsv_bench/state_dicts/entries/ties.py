"""Entries of a checkpoint that are copies of others: a head that is tied to the embedding."""

from collections.abc import Iterable, Mapping

import torch

from tsv_bench.state_dicts.entries.kinds import TIED_BIASES
from tsv_bench.state_dicts.entries.quantized import rows_at_once, same_values
from tsv_bench.task_vectors.lazy import LazyMapping


def tied_to(state: LazyMapping, name: str, pairs: Mapping[str, str]) -> str | None:
    """Return the key of ``pairs`` whose entry holds the same numbers as ``name``, if any does."""
    shape, dtype = state.shape(name), state.dtype(name)
    if not dtype.is_floating_point or not shape.numel():
        return None
    first = _first_row(state, name)  # entries of one shape are many, and large
    for key, other in pairs.items():
        if other == name or state.shape(other) != shape or state.dtype(other) != dtype:
            continue
        biases = _of_head(name) == _of_head(other)
        if len(shape) < 2 and not biases:  # vectors of zeros or ones are alike by chance
            continue
        alike = _first_row(state, other) == first and same_values(state, name, state, other)
        if alike and (biases or not _constant(state, name)):
            return key
    return None


def _of_head(name: str) -> str:
    return name.replace(*TIED_BIASES)


def _constant(state: LazyMapping, name: str) -> bool:
    """Return whether all numbers are one, as those of heads that were never trained."""
    first = state.rows(name, 0, 1).float().flatten()[0]
    starts = range(0, state.num_rows(name), step := rows_at_once(state, name))
    return all(bool((state.rows(name, s, s + step).float() == first).all()) for s in starts)


def tied_pairs(states: Iterable[LazyMapping], names: Iterable[str]) -> dict[str, str]:
    """Return name -> an earlier one that holds the same numbers in each checkpoint."""
    first, *others = states
    alike: dict[object, list[str]] = {}
    for name in names:
        shape, dtype = first.shape(name), first.dtype(name)
        if not shape or not shape.numel() or not dtype.is_floating_point:
            continue
        # Vectors are alike by chance, unless their names say that they are one.
        alike.setdefault((shape, dtype, len(shape) > 1 or _of_head(name)), []).append(name)
    tied: dict[str, str] = {}
    for group in alike.values():
        begin: dict[bytes, list[str]] = {}
        for name in group if len(group) > 1 else ():
            begin.setdefault(_first_row(first, name), []).append(name)
        for primary, *rest in begin.values():
            tied |= {
                name: primary
                for name in rest
                if all(same_values(state, primary, state, name) for state in (first, *others))
            }
    return tied


def _first_row(state: LazyMapping, name: str) -> bytes:
    return state.rows(name, 0, 1).contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
