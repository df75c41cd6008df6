"""What a method serves, checked: the right layers, and each tensor's type, shape and values."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tsv_bench.linalg.precision import all_finite
from tsv_bench.task_vectors.lazy import LazyMapping, LazyVector, Part, as_lazy, blocks


def checked(vector: Mapping, like: LazyMapping, who: str) -> LazyMapping:
    """Return the vector with every layer checked by `check_tensor`, lazy ones when computed.

    ``who`` begins the messages. Raises ValueError at once if the vector is no mapping, has other
    layers than ``like``, or is a dict with a wrong layer.
    """
    if not isinstance(vector, Mapping):
        raise ValueError(f"{who} a {type(vector).__name__} and not a mapping of layers to tensors.")
    if missing := [layer for layer in like if layer not in vector]:
        raise ValueError(
            f"{who} a vector that lacks {len(missing)} of the {len(like)} layers, first "
            f"{missing[0]!r}. A method serves every layer; one that stays as it is is zero."
        )
    if odd := [layer for layer in vector if layer not in like]:
        raise ValueError(
            f"{who} a vector with {len(odd)} layers that its task vector does not have, first "
            f"{odd[0]!r}."
        )
    if isinstance(vector, dict):
        for layer, tensor in vector.items():
            check_tensor(tensor, like.shape(layer), f"{who} {layer!r}")
        return as_lazy(vector)
    return LazyVector([like], lambda layer: _checked_parts(vector, layer, like, who))


def _checked_parts(vector: Mapping, layer: str, like: LazyMapping, who: str) -> list[Part]:
    shape, num_rows = like.shape(layer), like.num_rows(layer)
    if isinstance(vector, LazyVector):
        parts = list(vector.parts(layer))
    elif isinstance(vector, LazyMapping) and vector.reads_rows:
        parts = blocks([vector], layer, lambda deltas: deltas[0])
    else:
        parts = [Part(layer, 0, shape.numel(), lambda: vector[layer], lambda tensor: tensor)]
    stops = [*(part.start for part in parts[1:]), num_rows]

    def check(part: Part, stop: int) -> Part:
        rows = torch.Size([stop - part.start, *shape[1:]]) if shape else shape

        def compute(read: object) -> Tensor:
            tensor = part.compute(read)
            check_tensor(tensor, rows, f"{who} {layer!r}")
            return tensor

        return replace(part, compute=compute)

    return [check(part, stop) for part, stop in zip(parts, stops, strict=True)]


def check_tensor(tensor: object, shape: Sequence[int], what: str) -> None:
    """Raise ValueError unless it is a tensor of this shape, of finite numbers."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise ValueError(f"{what} as {kind}, not as a tensor of floating-point numbers.")
    if tensor.shape != torch.Size(shape):
        raise ValueError(
            f"{what} with shape {tuple(tensor.shape)}; the layer (or the rows of it that were "
            f"asked for) has {tuple(shape)}. Stacked deltas have the tasks first, and the rule "
            f"merges these."
        )
    if not all_finite(tensor):
        raise ValueError(
            f"{what} with NaN or infinity in it. Does the rule divide by zero where no task "
            f"changed anything?"
        )
