"""A whole checkpoint that is given as BASE+ADAPTER, mergekit's way to write it."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from tsv_bench.state_dicts.adapters.adapter import AdapterStateDict, is_adapter
from tsv_bench.state_dicts.entries.views import View
from tsv_bench.state_dicts.state_dict import StateDict, open_state_dict
from tsv_bench.task_vectors.lazy import LazyMapping, widest

log = logging.getLogger(__name__)


def base_and_adapter(path: Path | str) -> tuple[str, str] | None:
    """Return BASE and ADAPTER of a path that is written BASE+ADAPTER; None of any other path.

    BASE may be such a path itself.
    """
    base, plus, adapter = str(path).rpartition("+")
    if not plus or Path(path).exists() or not Path(adapter).exists():
        return None
    return base, adapter


def open_checkpoint(
    path: Path | str | StateDict, pretrained: Path | str | StateDict | None = None
) -> StateDict:
    """Open a checkpoint, which may be BASE+ADAPTER; return one that is open already.

    ``pretrained``: the path of what a fine-tuned one is compared with, or that itself. If it is
    BASE, the adapter alone is opened: its task vector then has factors. Raises FileNotFoundError or
    ValueError as `open_state_dict`, and for an ADAPTER that is none.
    """
    if isinstance(path, StateDict):
        return path
    pretrained = pretrained.path if isinstance(pretrained, StateDict) else pretrained
    both = base_and_adapter(path)
    if both is None:
        return open_state_dict(path)
    base, adapter = both
    file = open_state_dict(adapter)
    if not is_adapter(file):
        raise ValueError(f"{adapter} in {path} is no adapter. BASE+ADAPTER is one upon BASE.")
    if pretrained is not None and same_checkpoint(base, pretrained):
        return file
    if base_and_adapter(base):
        raise ValueError(
            f"{path} is an adapter upon an adapter; one upon a whole checkpoint is read. Give "
            f"pretrained={base} if it is that, or merge the first into its base."
        )
    if pretrained is not None:
        log.info(
            f"{path} is read as a whole checkpoint, as {base} is not pretrained={pretrained}: its "
            f"delta has no factors."
        )
    whole = as_whole if pretrained is not None else AdaptedStateDict
    return whole(open_state_dict(base), file)


def same_checkpoint(one: Path | str, other: Path | str) -> bool:
    """Return whether two paths, of which each may be BASE+ADAPTER, lead to the same files."""
    parts = base_and_adapter(one), base_and_adapter(other)
    if None in parts:
        return parts == (None, None) and Path(one).resolve() == Path(other).resolve()
    return all(same_checkpoint(*pair) for pair in zip(*parts, strict=True))


def as_whole(base: StateDict, file: StateDict) -> StateDict:
    """Return the fine-tuned checkpoint of an adapter, not rounded to the type of its base.

    Rounded, half precision would leave few digits of what the adapter adds. Raises ValueError as
    `AdaptedStateDict`.
    """
    return AdaptedStateDict(base, file, exact=True)


class AdaptedStateDict(View):
    """The whole checkpoint that an adapter makes of its base, in the base's files and shards."""

    def __init__(self, base: StateDict, file: StateDict, *, exact: bool = False) -> None:
        """``exact``: what the adapter changes is in float32 at least, not rounded to its type.

        Raises ValueError for an adapter that is not read, is damaged, or of another model.
        """
        super().__init__(base, {name: name for name in base})
        self._weights, self._exact = AdapterStateDict(base, file), exact
        self.weights_hash = None
        self._files = BaseAndAdapter(base, file)

    @property
    def stored(self) -> StateDict:
        return self._files

    def dtype(self, name: str) -> torch.dtype:
        own = super().dtype(name)
        return widest([own]) if self._exact and name in self._weights.changes else own

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        if self._exact and name in self._weights.changes:
            delta = self._weights.delta(name, start, stop)
            return super().rows(name, start, stop).to(delta.dtype) + delta
        return self._weights.rows(name, start, stop)

    def wide_rows(self, name: str, start: int, stop: int, device: torch.device) -> Tensor:
        return LazyMapping.wide_rows(self, name, start, stop, device)


class BaseAndAdapter(StateDict):
    """The files of a base and of an adapter upon it, with all that they hold."""

    def __init__(self, base: StateDict, adapter: StateDict) -> None:
        parts = [*base.stored.parts.values(), *adapter.parts.values()]
        names = [part.path.name for part in parts]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(
                f"{base.path} and the adapter {adapter.path} both have a file {min(twice)!r}. "
                f"Rename one of them."
            )
        super().__init__(base.path, parts)
        self.adapter = adapter
