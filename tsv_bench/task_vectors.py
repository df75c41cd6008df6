"""Task vectors, read and worked on one layer at a time: https://arxiv.org/abs/2212.04089.

A task vector is any mapping from layer name to delta (finetuned minus pretrained). It may be lazy:
each access reads or computes, nothing is kept. Task vectors are a mapping from task name to these.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg import at_least_float32

# Two-dimensional, yet not maps between activations: averaged, never decomposed. The paper's code
# names text_projection only; token_embedding has a zero delta there (the text tower is frozen).
# The visual tower's positional_embedding and proj are decomposed there, and so here.
NOT_MATRICES = ("text_projection", "token_embedding")

Delta = Float[Tensor, "..."]
Deltas = Float[Tensor, "tasks ..."]
TaskVectors = Mapping[str, Mapping[str, Tensor]]


class TaskVector(Mapping[str, Tensor]):
    """Finetuned minus pretrained, lazily: each access reads one parameter of both.

    In float32, or in float64 if either is. Integer buffers are left out: they have no delta.
    ValueError if parameters or shapes differ, or if a delta that is read is not finite.
    """

    def __init__(self, pretrained: Mapping[str, Tensor], finetuned: Mapping[str, Tensor]) -> None:
        odd = set(pretrained) ^ set(finetuned)
        if odd:
            raise ValueError(
                f"cannot subtract checkpoints with different parameters: {len(odd)} appear in only "
                f"one of them, first {min(odd)!r}. Were both written by the same backbone?"
            )
        self._pretrained, self._finetuned = pretrained, finetuned
        self._names: dict[str, None] = {}  # ordered, and `in` is quick
        # Reading a memory-mapped tensor for its shape leaves its pages on the disk.
        for name in pretrained:
            base, tuned = pretrained[name], finetuned[name]
            if base.shape != tuned.shape:
                raise ValueError(
                    f"cannot subtract checkpoints of different shapes: {name!r} is "
                    f"{tuple(base.shape)} in the pretrained and {tuple(tuned.shape)} in the "
                    f"fine-tuned one. Were both written by the same backbone?"
                )
            if base.is_floating_point() and tuned.is_floating_point():
                self._names[name] = None

    def __getitem__(self, name: str) -> Delta:
        if name not in self._names:
            raise KeyError(name)
        delta = at_least_float32(self._finetuned[name]) - at_least_float32(self._pretrained[name])
        if not delta.isfinite().all():
            raise ValueError(
                f"the delta of {name!r} is not finite: one of the checkpoints holds NaN or "
                f"infinity there. Make or fetch it again."
            )
        return delta

    def __contains__(self, name: object) -> bool:
        return name in self._names  # Mapping's own would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def is_matrix(name: str, param: Delta) -> bool:
    """Whether a merging method decomposes this layer: it is a map between activations."""
    return param.ndim == 2 and set(name.split(".")).isdisjoint(NOT_MATRICES)


def mean(deltas: Deltas) -> Delta:
    return deltas.mean(dim=0)


def merge_layers(
    vectors: Iterable[Mapping[str, Tensor]],
    merge_matrix: Callable[[Tensor], Tensor],
    merge_other: Callable[[Tensor], Tensor] = mean,
) -> dict[str, Tensor]:
    """Merge layer by layer: ``merge_matrix`` for matrices, the mean for everything else.

    Both take the stacked deltas of one layer, tasks x shape, in float32 at least; only these are
    in memory, beside the result. A layer that no task changed is zero without asking them.
    """
    vectors = list(vectors)
    _check_same_layers(vectors)

    def merge(name: str) -> Tensor:
        deltas = torch.stack([at_least_float32(vector[name]) for vector in vectors])
        if not deltas.any():
            return torch.zeros_like(deltas[0])
        return merge_matrix(deltas) if is_matrix(name, deltas[0]) else merge_other(deltas)

    return {name: merge(name) for name in (vectors[0] if vectors else ())}


def _check_same_layers(vectors: list[Mapping[str, Tensor]]) -> None:
    for vector in vectors[1:]:
        odd = set(vector) ^ set(vectors[0])
        if odd:
            raise ValueError(
                f"cannot merge task vectors with different layers: {len(odd)} appear in only one "
                f"of them, first {min(odd)!r}. Are all of the same backbone?"
            )


def map_layers(
    vector: Mapping[str, Tensor], function: Callable[[str, Tensor], Tensor]
) -> Mapping[str, Tensor]:
    """A lazy vector: each access computes ``function(name, delta)``, in float32 at least."""
    return _Mapped(vector, function)


class _Mapped(Mapping[str, Tensor]):
    def __init__(self, vector: Mapping[str, Tensor], function: Callable[[str, Tensor], Tensor]):
        self._vector, self._function = vector, function

    def __getitem__(self, name: str) -> Delta:
        return self._function(name, at_least_float32(self._vector[name]))

    def __contains__(self, name: object) -> bool:
        return name in self._vector

    def __iter__(self) -> Iterator[str]:
        return iter(self._vector)

    def __len__(self) -> int:
        return len(self._vector)


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
