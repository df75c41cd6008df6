"""A LoRA adapter as the fine-tuned checkpoint that it makes of its pretrained one, read lazily."""

import threading
from collections.abc import Mapping

import torch
from torch import Tensor

from tsv_bench.linalg.factored import triplets_of_product
from tsv_bench.state_dicts.adapters.changes import Change, Changes
from tsv_bench.state_dicts.adapters.config import CONFIG_FILE, AdapterConfig, read_config
from tsv_bench.state_dicts.adapters.names import is_lora
from tsv_bench.state_dicts.low_rank import OnPretrained, StoredTaskVector
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.task_vectors.lazy import Triplets
from tsv_bench.task_vectors.matrices import Matrices


def is_adapter(state: StateDict) -> bool:
    """Return whether a file holds an adapter's tensors, or stands for one in its folder."""
    beside = state.path.is_dir() and state.files[0].name.startswith("adapter_model.")
    return beside or is_lora(state.names)


def config_of(state: StateDict) -> AdapterConfig:
    """Return the configuration beside an adapter. Raises ValueError as `read_config`."""
    path = state.files[0].with_name(CONFIG_FILE)
    if not path.is_file():
        raise ValueError(
            f"{state.path} holds an adapter, and there is no {CONFIG_FILE} beside it, which says "
            f"how it is scaled. Put it there, or save the adapter with peft's save_pretrained."
        )
    return read_config(path)


class AdapterStateDict(OnPretrained):
    """The fine-tuned checkpoint of an adapter and its pretrained weights."""

    def __init__(self, pretrained: Mapping[str, Tensor], file: StateDict) -> None:
        """Raises ValueError for an adapter that is not read, is damaged, or of another model."""
        super().__init__(pretrained)
        self.path, self._file, self.config = file.path, file, config_of(file)
        found = Changes(self._pretrained, file, self.config)
        self.changes = found.changes
        self.module_of = found.module_of  # parameter -> the adapter's name of its module
        self._last = threading.local()

    def rank(self, name: str) -> int | None:
        """Return the rank of `factors`: 0 of a parameter that stays as it is, None without any."""
        change = self.changes.get(name)
        if change is None:
            return 0
        if not change.is_product or len(self.shape(name)) != 2:
            return None
        return min(self._file.shape(change.low[0])[0], *self.shape(name))

    def factors(self, name: str) -> tuple[Tensor, Tensor] | None:
        """Return [m, r] and [r, n] whose product is the delta; None if it is none of a matrix."""
        return self._factors(name, self.changes[name]) if self.rank(name) else None

    def delta(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Return rows of the parameter's delta, in float32, of float64 weights in float64."""
        shape, change = self.shape(name), self.changes.get(name)
        count = shape[0] if shape else 1
        start, stop, _ = slice(start, stop).indices(count)
        if change is None:
            return torch.zeros((stop - start, *shape[1:]) if shape else (), dtype=self._wide(name))
        if change.is_product:
            left, right = self._factors(name, change)
            return (left[start:stop] @ right).reshape(-1, *shape[1:])
        base = self._pretrained.rows(name, start, stop).to(self._wide(name))
        return self._tuned(name, change, start, stop, base) - base

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        base, change = self._pretrained.rows(name, start, stop), self.changes.get(name)
        if change is None:
            return base
        return self._tuned(name, change, start, stop, base.to(self._wide(name))).to(base.dtype)

    def _wide(self, name: str) -> torch.dtype:
        return torch.float64 if self.dtype(name) == torch.float64 else torch.float32

    def _factors(self, name: str, change: Change) -> tuple[Tensor, Tensor]:
        last = self._last
        if getattr(last, "name", None) != name:
            a, b = (self._file[key].flatten(1).to(self._wide(name)) for key in change.low)
            left, right = (a.mT, b.mT) if change.transposed else (b, a)
            last.factors, last.name = (left * change.scale, right), name
        return last.factors

    def _tuned(self, name: str, change: Change, start: int, stop: int, base: Tensor) -> Tensor:
        """Return rows of the fine-tuned parameter, given those of the pretrained one."""
        tuned = base
        if change.frozen:
            copy = self._file.rows(change.frozen, start, stop)
            tuned = torch.where(base.to(copy.dtype) == copy, base, copy.to(base.dtype))
        if change.whole:
            tuned = self._file.rows(change.whole, start, stop).to(base.dtype)
        if change.added:
            tuned = tuned + change.scale * self._file.rows(change.added, start, stop).to(base.dtype)
        if change.low:
            left, right = self._factors(name, change)
            tuned = tuned + (left[start:stop] @ right).reshape(tuned.shape)
        if change.magnitude:
            return self._with_norms(name, change, start, stop, tuned)
        if change.tokens:
            tuned, rows = tuned.clone(), self._file[change.tokens].to(base.dtype)
            for row, index in zip(rows, change.indices, strict=True):
                if start <= index < stop:
                    tuned[index - start] = row
        return tuned

    def _with_norms(
        self, name: str, change: Change, start: int, stop: int, tuned: Tensor
    ) -> Tensor:
        """Return DoRA's rows: each output's weights scaled to the norm that was learned."""
        wanted = self._file[change.magnitude].to(tuned.dtype).flatten()
        if not change.transposed:
            norms = torch.linalg.vector_norm(tuned, dim=1)
            return tuned * (wanted[start:stop] / norms)[:, None]
        last = self._last
        if getattr(last, "norms_of", None) != name:  # of columns: all rows are needed
            whole = self._pretrained[name].to(tuned.dtype)
            left, right = self._factors(name, change)
            last.norms, last.norms_of = torch.linalg.vector_norm(whole + left @ right, dim=0), name
        return tuned * (wanted / last.norms)


class AdapterTaskVector(StoredTaskVector):
    """The task vector of an adapter, whose matrices are known by their factors."""

    @property
    def config(self) -> AdapterConfig:
        return self.weights.config

    def factor_rank(self, name: str) -> int | None:
        return self.weights.rank(name)

    def factors(self, name: str) -> tuple[Tensor, Tensor] | None:
        found = self.weights.factors(name)
        return found and tuple(part.to(self._device) for part in found)

    def recall(self, name: str, rank: int, kind: str) -> Triplets | None:
        factors = self.factors(name)
        if factors is None:
            return None
        matrices = Matrices((), split_qkv=kind.endswith("-split"))
        return triplets_of_product(*matrices.split_factors(name, *factors), rank)
