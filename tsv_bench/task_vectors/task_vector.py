"""Subtract two checkpoints, and add a vector to one: https://arxiv.org/abs/2212.04089."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from tsv_bench.linalg.precision import all_finite, at_least_float32
from tsv_bench.task_vectors.lazy import (
    Delta,
    LazyMapping,
    OtherLayers,
    as_lazy,
    blocks,
    turn,
    widest,
)
from tsv_bench.task_vectors.merge import mean


class TaskVector(LazyMapping):
    """Fine-tuned minus pretrained; each access reads one parameter of both.

    Deltas are on ``device``, in float64 if either parameter is, else in float32. Of several
    devices, as in "cuda:0,cuda:1", each part that is streamed takes the next. Integer buffers are
    left out: they have no delta. Where both hold the same infinity, or NaN, the delta is zero.
    Raises ValueError if parameters or shapes differ, and on access if a delta is not finite.
    """

    def __init__(
        self,
        pretrained: Mapping,
        finetuned: Mapping,
        device: str = "cpu",
    ) -> None:
        pretrained, finetuned = as_lazy(pretrained), as_lazy(finetuned)
        odd = set(pretrained) ^ set(finetuned)
        if odd:
            raise ValueError(
                f"cannot subtract checkpoints with different parameters: {len(odd)} appear in only "
                f"one of them, first {min(odd)!r}. Were both written by the same backbone?"
            )
        self._pretrained, self._finetuned = pretrained, finetuned
        self._devices = device.split(",")
        self.reads_rows = pretrained.reads_rows and finetuned.reads_rows
        self._shapes: dict[str, torch.Size] = {}
        self._types: dict[str, tuple[torch.dtype, torch.dtype]] = {}
        for name in pretrained:
            base, tuned = pretrained.shape(name), finetuned.shape(name)
            if base != tuned:
                raise ValueError(
                    f"cannot subtract checkpoints of different shapes: {name!r} is "
                    f"{tuple(base)} in the pretrained and {tuple(tuned)} in the "
                    f"fine-tuned one. Were both written by the same backbone?"
                )
            types = pretrained.dtype(name), finetuned.dtype(name)
            if all(dtype.is_floating_point for dtype in types):
                self._shapes[name], self._types[name] = base, types
            elif types[0].is_floating_point:
                raise ValueError(
                    f"cannot subtract integers from weights: {name!r} is {types[0]} in the "
                    f"pretrained and {types[1]} in the fine-tuned one. Is that one quantized?"
                )

    def rows(self, name: str, start: int, stop: int) -> Delta:
        """Return some rows of one delta. Only these are read if both checkpoints can read rows."""
        if name not in self._shapes:
            raise KeyError(name)
        shape = self._shapes[name]
        if shape:
            start, stop, _ = slice(start, stop).indices(shape[0])
            shape = torch.Size([max(stop - start, 0), *shape[1:]])
        delta = torch.empty(shape, dtype=self.dtype(name), device=self._device)
        self._subtract(name, start, stop, delta)
        return delta

    def read_into(self, name: str, start: int, stop: int, out: Tensor) -> None:
        if out.dtype == self.dtype(name) and name in self._shapes:
            self._subtract(name, start, stop, out)  # no second tensor of this size
        else:
            super().read_into(name, start, stop, out)

    @property
    def _device(self) -> str:
        return self._devices[turn.get() % len(self._devices)]

    @property
    def names(self) -> Collection[str]:
        return self._shapes

    def shape(self, name: str) -> torch.Size:
        return self._shapes[name]

    def dtype(self, name: str) -> torch.dtype:
        return widest(self._types[name])

    def _subtract(self, name: str, start: int, stop: int, out: Delta) -> None:
        """Fill ``out``, in the delta's type, with some of its rows; only these are read."""
        base = self._pretrained.wide_rows(name, start, stop, out.device)
        out.copy_(self._finetuned.rows(name, start, stop)).sub_(base)
        if not all_finite(out):
            out.masked_fill_(infinite_alike(base, self._finetuned.rows(name, start, stop)), 0)
        if not all_finite(out):
            raise NotFiniteError(
                f"the delta of {name!r} is not finite: one of the checkpoints holds NaN or "
                f"infinity there. Make or fetch it again."
            )


class Weights(OtherLayers):
    """The pretrained weights of the layers that a task vector has, for methods that see them.

    Each access reads a layer, in float32 at least, on the device of the deltas.
    """

    def __init__(self, pretrained: Mapping, vector: Mapping, device: str = "cpu") -> None:
        super().__init__(pretrained)
        self._like, self._devices = as_lazy(vector), device.split(",")

    @property
    def names(self) -> Collection[str]:
        return self._like.names

    def dtype(self, name: str) -> torch.dtype:
        return widest([self._layers.dtype(name)])

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        device = torch.device(self._devices[turn.get() % len(self._devices)])
        return self._layers.wide_rows(name, start, stop, device)

    def __getitem__(self, name: str) -> Tensor:
        return self.rows(name, 0, self.num_rows(name))


class NotFiniteError(ValueError):
    """A delta holds NaN or infinity."""


def infinite_alike(one: Tensor, other: Tensor) -> Tensor:
    """Return where both hold the same infinity, or both NaN, as masks of attention do."""
    one, other = at_least_float32(one), at_least_float32(other).to(one.device)
    return ~one.isfinite() & ((one == other) | (one.isnan() & other.isnan()))


def is_changed(vector: Mapping, name: str) -> bool:
    """Return whether any entry of a layer's delta is not zero; stops reading at the first."""
    vector = as_lazy(vector)
    if vector.factor_rank(name) == 0:
        return False
    return any(bool(part.read().any()) for part in blocks([vector], name, mean))


def apply(pretrained: Mapping, vector: Mapping, alpha: float | int) -> dict[str, Tensor]:
    """Return ``pretrained + alpha * vector``, a new state dict in pretrained's types and device.

    Parameters that the vector lacks (integer buffers) are copied. Raises ValueError if the vector
    has a layer that is not in ``pretrained``.
    """
    odd = set(vector) - set(pretrained)
    if odd:
        raise ValueError(
            f"cannot add a vector to this pretrained backbone: {len(odd)} of its layers are not "
            f"there, first {min(odd)!r}. Was it made from the same backbone?"
        )
    model = {}
    for name in pretrained:
        base = pretrained[name]
        if name in vector:
            delta = at_least_float32(vector[name]).to(base.device)
            model[name] = (at_least_float32(base) + alpha * delta).to(base.dtype)
        else:
            model[name] = base.clone()
    return model
