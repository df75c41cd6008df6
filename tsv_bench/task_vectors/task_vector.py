"""Task vectors, read and worked on one layer at a time: https://arxiv.org/abs/2212.04089.

A task vector is any mapping from layer name to delta (finetuned minus pretrained). It may be lazy:
each access reads or computes, nothing is kept. Task vectors are a mapping from task name to these.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.task_vectors.lazy import Delta, Triplets, blocks, dtype_of, rows_of, shape_of
from tsv_bench.task_vectors.merge import mean


class TaskVector(Mapping[str, Tensor]):
    """Finetuned minus pretrained, lazily: each access reads one parameter of both.

    In float32, or in float64 if either is, on ``device``. Integer buffers are left out: they have
    no delta. ValueError if parameters or shapes differ, or if a delta that is read is not finite.
    """

    def __init__(
        self,
        pretrained: Mapping[str, Tensor],
        finetuned: Mapping[str, Tensor],
        device: str = "cpu",
    ) -> None:
        odd = set(pretrained) ^ set(finetuned)
        if odd:
            raise ValueError(
                f"cannot subtract checkpoints with different parameters: {len(odd)} appear in only "
                f"one of them, first {min(odd)!r}. Were both written by the same backbone?"
            )
        self._pretrained, self._finetuned, self._device = pretrained, finetuned, device
        self._shapes: dict[str, torch.Size] = {}
        self._types: dict[str, tuple[torch.dtype, torch.dtype]] = {}
        for name in pretrained:
            base, tuned = shape_of(pretrained, name), shape_of(finetuned, name)
            if base != tuned:
                raise ValueError(
                    f"cannot subtract checkpoints of different shapes: {name!r} is "
                    f"{tuple(base)} in the pretrained and {tuple(tuned)} in the "
                    f"fine-tuned one. Were both written by the same backbone?"
                )
            types = dtype_of(pretrained, name), dtype_of(finetuned, name)
            if all(dtype.is_floating_point for dtype in types):
                self._shapes[name], self._types[name] = base, types
            elif types[0].is_floating_point:
                raise ValueError(
                    f"cannot subtract integers from weights: {name!r} is {types[0]} in the "
                    f"pretrained and {types[1]} in the fine-tuned one. Is that one quantized?"
                )

    def __getitem__(self, name: str) -> Delta:
        if name not in self._shapes:
            raise KeyError(name)
        return self._delta(name, self._pretrained[name], self._finetuned[name])

    def rows(self, name: str, start: int, stop: int) -> Delta:
        """Some rows of one delta; only these are read, where the checkpoints can."""
        if name not in self._shapes:
            raise KeyError(name)
        return self._delta(
            name,
            rows_of(self._pretrained, name, start, stop),
            rows_of(self._finetuned, name, start, stop),
        )

    def shape(self, name: str) -> torch.Size:
        return self._shapes[name]

    def dtype(self, name: str) -> torch.dtype:
        return torch.promote_types(
            *(torch.promote_types(t, torch.float32) for t in self._types[name])
        )

    def rank_ahead(self, full_rank: int) -> int:
        """The rank that is worth computing because it will be wanted later."""
        return 0

    def recall(self, name: str, rank: int, kind: str) -> Triplets | None:
        """Singular triplets that someone has kept: at most ``rank``; None if there are none."""
        return None

    def keep(self, name: str, triplets: Triplets, kind: str) -> None:
        """Leave singular triplets to whoever wants to `recall` them."""

    def _delta(self, name: str, base: Tensor, tuned: Tensor) -> Delta:
        base = at_least_float32(base).to(self._device)
        tuned = at_least_float32(tuned).to(self._device)
        if getattr(self._finetuned, "fresh", False) and tuned.dtype == base.dtype:
            delta = tuned.sub_(base)  # no third tensor of this size
        else:
            delta = tuned - base
        # The sum first, as it needs no memory; it may overflow where no entry does.
        if not delta.sum().isfinite() and not delta.isfinite().all():
            raise ValueError(
                f"the delta of {name!r} is not finite: one of the checkpoints holds NaN or "
                f"infinity there. Make or fetch it again."
            )
        return delta

    def __contains__(self, name: object) -> bool:
        return name in self._shapes  # Mapping's own would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def is_changed(vector: Mapping[str, Tensor], name: str) -> bool:
    """Whether any entry of the delta is not zero; reads no further than it must."""
    return any(bool(part.read().any()) for part in blocks([vector], name, mean))


def apply(
    pretrained: Mapping[str, Tensor], vector: Mapping[str, Tensor], alpha: float | int
) -> dict[str, Tensor]:
    """``pretrained + alpha * vector``, a new state dict with the dtypes and device of pretrained.

    What the vector does not hold (integer buffers) stays as it is. ValueError if it holds more.
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
