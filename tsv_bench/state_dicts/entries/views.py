"""Checkpoints seen under the names, and with the rows, of another one."""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.state_dicts.entries.matching import without_wrappers
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.task_vectors.lazy import LazyMapping

Rows = Callable[[str, int, int], Tensor]  # of a name, from one row to another


class View(StateDict):
    """A checkpoint under other names, or some of its entries, or these with other rows.

    Its files, their shards and their other properties are those of what is `stored`.
    """

    def __init__(
        self,
        state: StateDict,
        names: Mapping[str, str],
        num_rows: Mapping[str, int] | None = None,
        beyond: Rows | None = None,
    ) -> None:
        """``names``: name -> stored one. ``num_rows``: of entries with fewer or more rows than the
        file has; what lies ``beyond`` the file's rows.
        """
        self.__dict__ = dict(state.__dict__)
        self._stored, self._names = state, dict(names)
        self._num_rows, self._beyond = num_rows or {}, beyond

    @property
    def stored(self) -> StateDict:
        return self._stored.stored

    @property
    def names(self) -> Collection[str]:
        return self._names.keys()

    def shape(self, name: str) -> torch.Size:
        shape = self._stored.shape(self._names[name])
        return torch.Size([self._num_rows[name], *shape[1:]]) if name in self._num_rows else shape

    def dtype(self, name: str) -> torch.dtype:
        return self._stored.dtype(self._names[name])

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        source = self._names[name]
        if name not in self._num_rows:
            return self._stored.rows(source, start, stop)
        start, stop, _ = slice(start, stop).indices(self._num_rows[name])
        held = self._stored.num_rows(source)
        own = self._stored.rows(source, min(start, held), min(stop, held))
        if stop <= held:
            return own
        more = self._beyond(name, max(start, held), stop).to(own.dtype)
        out = torch.empty((len(own) + len(more), *own.shape[1:]), dtype=own.dtype)
        out[: len(own)], out[len(own) :] = own, more
        return out

    def wide_rows(self, name: str, start: int, stop: int, device: torch.device) -> Tensor:
        if name not in self._num_rows:
            return self._stored.wide_rows(self._names[name], start, stop, device)
        return super().wide_rows(name, start, stop, device)

    def seen_as(self, stored: str) -> str | None:
        """Return the first name under which an entry of the file is seen here, if any."""
        inner = self._stored.seen_as(stored)
        return next((name for name, source in self._names.items() if source == inner), None)


class Layout(View):
    """The files of one checkpoint, whose shared entries are another's."""

    def __init__(self, files: StateDict, shared: LazyMapping) -> None:
        """``shared``: what stands in place of the entries of ``files`` that have these names."""
        super().__init__(files, {name: name for name in files})
        self._shared = shared

    @property
    def stored(self) -> StateDict:
        return self._shared.stored

    def shape(self, name: str) -> torch.Size:
        return self._of(name).shape(name)

    def dtype(self, name: str) -> torch.dtype:
        return self._of(name).dtype(name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        return self._of(name).rows(name, start, stop)

    def wide_rows(self, name: str, start: int, stop: int, device: torch.device) -> Tensor:
        return self._of(name).wide_rows(name, start, stop, device)

    def seen_as(self, stored: str) -> str | None:
        return self._shared.seen_as(stored)

    def _of(self, name: str) -> LazyMapping:
        return self._shared if name in self._shared else self._stored


def unwrapped(state: StateDict) -> StateDict:
    """Return the checkpoint under the names that it had before modules were wrapped for training.

    It is ``state`` itself if nothing was, or if two entries would have one name.
    """
    names = {without_wrappers(name): name for name in state}
    if len(names) < len(state) or all(new == old for new, old in names.items()):
        return state
    view = View(state, names)
    view.shards = {
        shard: list(map(without_wrappers, listed)) for shard, listed in state.shards.items()
    }
    return view


def mean_rows(sources: Sequence[tuple[LazyMapping, str]], start: int, stop: int) -> Tensor:
    """Return some rows, each the mean over those entries that are long enough to have it."""
    total, count = None, torch.zeros(stop - start)
    for state, name in sources:
        rows = at_least_float32(state.rows(name, start, min(stop, state.num_rows(name))))
        if total is None:
            total = rows.new_zeros((stop - start, *state.shape(name)[1:]))
        total[: len(rows)] += rows
        count[: len(rows)] += 1
    return total / count.reshape(-1, *[1] * (total.ndim - 1))
