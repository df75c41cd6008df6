"""What a method serves, made sure of: tasks, layers, shapes, finite numbers."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tsv_bench.task_vectors.lazy import LazyVector, Part, shape_of
from tsv_bench.task_vectors.matrices import FUSED, Matrices, matches


def made_up_vectors() -> dict[str, dict[str, Tensor]]:
    """Of two tasks, small ones, with layers of every form that a backbone has."""
    shapes = {"proj": (6, 6), "in_proj_weight": (12, 4), "conv1.weight": (4, 3, 2, 2), "bias": (4,)}
    generator = torch.Generator().manual_seed(0)
    return {
        task: {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        | {"logit_scale": torch.randn((), generator=generator)}
        for task in ("a", "b")
    }


def serves_one(serve: Callable[[Mapping], Mapping], tasks: Iterable[str]) -> bool:
    """Whether one vector is served to all tasks; told by made-up ones, at once."""
    served = list(made_up(serve, tasks).values())
    return all(vector is served[0] for vector in served)


def made_up(serve: Callable[[Mapping], Mapping], tasks: Iterable[str]) -> Mapping[str, Mapping]:
    """What is served to these tasks, and to two at least, if all they have is a tiny layer."""
    names = [*tasks]
    names += [f"{names[0]} too"] if len(names) == 1 else []
    return serve({task: {"layer": torch.eye(2)} for task in names})


log = logging.getLogger(__name__)


def served_by(
    serve: Callable[[Mapping], Mapping], task_vectors: Mapping[str, Mapping[str, Tensor]], name: str
) -> dict[str, Mapping[str, Tensor]]:
    """What a method serves, by task, made sure of: the suite's tasks, and the layers of each.

    ValueError for what is not that; for the shape, type or values of a layer as soon as it is
    there, which is when it is computed where that is on access. A vector that is served to several
    tasks stays one object. A warning for knobs about layers that no layer of these fits.
    """
    knobs = getattr(serve, "keywords", {})
    layers = next(iter(task_vectors.values()), {})
    shapes = {layer: shape_of(layers, layer) for layer in layers} if knobs else {}
    for message in void_patterns(shapes, knobs.get("exclude"), knobs.get("split_qkv", False)):
        log.warning(message)
    return served_mapping(serve, task_vectors, name)


def void_patterns(
    shapes: Mapping[str, Sequence[int]], exclude: Sequence[str] | None, split_qkv: bool
) -> Iterator[str]:
    """What to say of patterns that fit no matrix, and of ``split_qkv`` where none is fused."""
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    patterns = [] if exclude is None or isinstance(exclude, str) else list(exclude)
    for pattern in patterns:
        if not any(matches(name, [pattern]) for name in matrices):
            yield (
                f"exclude: the pattern {pattern!r} fits no two-dimensional layer, so it has no "
                f"effect. There are {len(matrices)}, as {', '.join(map(repr, matrices[:3]))}."
            )
    left = [name for name in matrices if not matches(name, patterns)]
    fused = Matrices(split_qkv=True).fused_side
    if split_qkv is True and all(fused(name, shapes[name]) is None for name in left):
        yield (
            f"split_qkv=true has no effect: no matrix is a fused attention projection, one side "
            f"three times the other and called {', '.join(FUSED)}."
        )


def served_mapping(
    serve: Callable[[Mapping], Mapping], task_vectors: Mapping[str, Mapping[str, Tensor]], name: str
) -> dict[str, Mapping[str, Tensor]]:
    served = serve(task_vectors)
    if not isinstance(served, Mapping):
        raise ValueError(
            f"{name} serves a {type(served).__name__} and not a mapping of tasks to vectors: one "
            f"vector for all is dict.fromkeys(task_vectors, vector)."
        )
    if odd := [task for task in served if task not in task_vectors]:
        layers = next(iter(task_vectors.values()), {})
        hint = " That is a layer: is it one vector for all tasks?" if odd[0] in layers else ""
        raise ValueError(
            f"{name} serves {odd[0]!r}, which is no task of the suite.{hint} A method returns a "
            f"mapping with {', '.join(task_vectors)}, as dict.fromkeys(task_vectors, vector)."
        )
    if missing := [task for task in task_vectors if task not in served]:
        raise ValueError(
            f"{name} serves nothing to {missing[0]}: a method returns a vector for each of "
            f"{', '.join(task_vectors)}."
        )
    sound: dict[int, Mapping[str, Tensor]] = {}
    for task, like in task_vectors.items():
        vector = served[task]
        if id(vector) not in sound:
            sound[id(vector)] = _sound(vector, like, f"{name} serves {task}")
    return {task: sound[id(served[task])] for task in task_vectors}


def _sound(
    vector: Mapping[str, Tensor], like: Mapping[str, Tensor], who: str
) -> Mapping[str, Tensor]:
    """The vector, with a task vector's layers; a lazy one checks each as it is computed."""
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
    if type(vector) is LazyVector:
        return LazyVector(vector, lambda layer: _checked_parts(vector, layer, like, who))
    if type(vector) is dict:
        for layer, tensor in vector.items():
            _check_tensor(tensor, shape_of(like, layer), f"{who} {layer!r}")
    return vector


def _checked_parts(
    vector: LazyVector, layer: str, like: Mapping[str, Tensor], who: str
) -> list[Part]:
    shape = shape_of(like, layer)
    parts = vector.parts(layer)
    stops = [*(part.start for part in parts[1:]), shape[0] if shape else 1]

    def checked(part: Part, stop: int) -> Part:
        rows = torch.Size([stop - part.start, *shape[1:]]) if shape else shape

        def compute(read: Any) -> Tensor:
            tensor = part.compute(read)
            _check_tensor(tensor, rows, f"{who} {layer!r}")
            return tensor

        return replace(part, compute=compute)

    return [checked(part, stop) for part, stop in zip(parts, stops, strict=True)]


def _check_tensor(tensor: Tensor, shape: Sequence[int], what: str) -> None:
    """ValueError unless it is a tensor of this shape, of finite numbers."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise ValueError(f"{what} as {kind}, not as a tensor of floating-point numbers.")
    if tensor.shape != torch.Size(shape):
        raise ValueError(
            f"{what} with shape {tuple(tensor.shape)}; the layer (or the rows of it that were "
            f"asked for) has {tuple(shape)}. Stacked deltas have the tasks first, and the rule "
            f"merges these."
        )
    # The sum first, as it needs no memory; it may overflow where no entry does.
    if not tensor.sum().isfinite() and not tensor.isfinite().all():
        raise ValueError(
            f"{what} with NaN or infinity in it. Does the rule divide by zero where no task "
            f"changed anything?"
        )
