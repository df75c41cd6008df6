"""Entries that no arithmetic merges: codes of quantized weights, integers, flags, complex numbers.

They are in an output as the pretrained checkpoint has them, which is right only where all agree.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from tsv_bench.state_dicts.entries.kinds import is_count
from tsv_bench.task_vectors.lazy import LazyMapping, as_lazy

log = logging.getLogger(__name__)
BLOCK = 2**20  # entries that are compared at once
# What stands beside codes, at the end of a name that begins like theirs or like their module's.
OF_CODES = ("_scale", "_scale_inv", "_scales", ".absmax", ".quant_map", ".SCB", ".scales")
OF_MODULE = ("scale", "scales", "scale_inv", "SCB", "absmax", "qzeros", "quant_map", "zero_point")


def check_unscaled(names: LazyMapping) -> None:
    """Raise ValueError that names the first 8-bit weight with a scale beside it; nothing is read.

    Averaging codes and scales apart gives another weight than averaging what they stand for.
    """
    for name in names:
        if names.dtype(name).itemsize > 1 or names.dtype(name) == torch.bool:
            continue
        if scale := next((s for s in _scales_of(name) if s in names), None):
            kind = str(names.dtype(name)).removeprefix("torch.")
            raise ValueError(
                f"{name!r} is quantized: it holds {kind} codes, and {scale!r} is their scale. "
                f"Merged apart they give wrong weights. Merge the checkpoints from before "
                f"quantization, or write each again with its weights multiplied out."
            )


def _scales_of(name: str) -> Iterator[str]:
    module, dot, last = name.rpartition(".")
    yield from (name + end for end in OF_CODES)
    yield re.sub(r"_blocks$", "_scales", name) if name.endswith("_blocks") else name + "_scales"
    if "weight" in last:
        yield from (module + dot + other for other in OF_MODULE)


def check_integers(pretrained: Mapping, finetuned: Mapping[str, Mapping]) -> None:
    """Raise ValueError for an entry that is not merged and that a task has other than pretrained.

    Counters and positions may differ: logs in one line which stay as the pretrained ones.
    """
    pretrained, counts = as_lazy(pretrained), []
    states = {task: as_lazy(state) for task, state in finetuned.items()}
    for name in pretrained:
        dtype, shape = pretrained.dtype(name), pretrained.shape(name)
        if dtype.is_floating_point:
            continue
        others = [task for task, s in states.items() if name in s]
        odd = next((task for task in others if not _agree(pretrained, states[task], name)), None)
        if odd is None:
            continue
        if not is_count(name, dtype, shape):
            kinds = f"{_short(dtype)} in the pretrained, {_short(states[odd].dtype(name))} in it"
            raise ValueError(
                f"{odd}: {name!r} is not what the pretrained checkpoint has there ({kinds}), and "
                f"only floating-point weights are merged: keeping the pretrained one would give a "
                f"wrong model. Is it quantized, or packed? Merge the checkpoints from before that."
            )
        counts.append(name)
    if counts:
        log.info(f"{named(counts)}: counters and positions stay as the pretrained ones.")


def named(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


def same_values(one: LazyMapping, first: str, other: LazyMapping, second: str) -> bool:
    """Return whether two entries hold the same numbers; stops reading at the first difference."""
    if one.shape(first) != other.shape(second):
        return False
    num_rows, step = one.num_rows(first), rows_at_once(one, first)
    return all(
        _equal(one.rows(first, start, start + step), other.rows(second, start, start + step))
        for start in range(0, num_rows, step)
    )


def rows_at_once(state: LazyMapping, name: str) -> int:
    """Return how many rows of an entry are compared at once."""
    num_rows = max(state.num_rows(name), 1)
    return max(1, BLOCK * num_rows // max(state.shape(name).numel(), 1))


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.dtype == other.dtype:  # bit for bit: float8 has no equality, and NaN is not itself
        bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
        return torch.equal(*bits)
    one, other = (t.float() if t.dtype.itemsize == 1 else t for t in (one, other))
    return bool((one == other).all())


def _agree(pretrained: LazyMapping, state: LazyMapping, name: str) -> bool:
    return not state.dtype(name).is_floating_point and same_values(pretrained, name, state, name)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
