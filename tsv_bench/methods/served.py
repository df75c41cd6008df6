"""Run a method and check what it serves: the right tasks and layers, in a known form."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from tsv_bench.methods.forms import Served, Shared, form_of
from tsv_bench.methods.needs import PRETRAINED
from tsv_bench.task_vectors.lazy import LazyVector, as_lazy
from tsv_bench.task_vectors.matrices import FUSED, Matrices, matches
from tsv_bench.task_vectors.statistics import Gathered, Statistics
from tsv_bench.task_vectors.streaming import observer

log = logging.getLogger(__name__)


def served_by(
    serve: Callable[[Mapping], Mapping], task_vectors: Mapping[str, Mapping], name: str
) -> Served:
    """Return what a method serves to the suite's tasks; messages call the method ``name``.

    Warns of ``exclude`` and ``split_qkv`` that fit no layer. Raises ValueError at once for wrong
    tasks or layers. Shape, dtype and finiteness of a lazy layer are checked when it is computed.
    """
    knobs = getattr(serve, "keywords", {})
    layers = as_lazy(next(iter(task_vectors.values()), {}))
    shapes = {layer: layers.shape(layer) for layer in layers} if knobs else {}
    for message in void_patterns(shapes, knobs.get("exclude"), knobs.get("split_qkv", False)):
        log.warning(message)
    served = served_mapping(serve, task_vectors, name)
    return form_by_trial(serve, task_vectors)(served, task_vectors, name)


def void_patterns(
    shapes: Mapping[str, Sequence[int]], exclude: Sequence[str] | None, split_qkv: bool
) -> Iterator[str]:
    """Yield a warning for each pattern that fits no matrix, and for a void ``split_qkv``."""
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
    serve: Callable[[Mapping], Mapping], task_vectors: Mapping[str, Mapping], name: str
) -> dict[str, Mapping]:
    """Return what the method serves, in the suite's order. Raises ValueError for wrong tasks."""
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
    return {task: served[task] for task in task_vectors}


def made_up_vectors(num_tasks: int = 2) -> dict[str, dict[str, Tensor]]:
    """Return small task vectors, with layers of every shape that a backbone has."""
    shapes = {"proj": (6, 6), "in_proj_weight": (12, 4), "conv1.weight": (4, 3, 2, 2), "bias": (4,)}
    generator = torch.Generator().manual_seed(0)
    return {
        task: {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        | {"logit_scale": torch.randn((), generator=generator)}
        for task in (chr(ord("a") + number) for number in range(num_tasks))
    }


def made_up_statistics(kind: str, count: int) -> dict[str, Statistics]:
    """Return statistics of a kind for the tasks and layers of `made_up_vectors`."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    for task, layers in made_up_vectors(count).items():
        matrices = {name: layer for name, layer in layers.items() if layer.ndim == 2}
        inputs = {n: torch.randn(9, m.shape[1], generator=generator) for n, m in matrices.items()}
        values = {
            "inputs": {name: x.mT @ x for name, x in inputs.items()},
            "means": {name: x.mean(dim=0) for name, x in inputs.items()},
            "fisher": {name: layer.square() for name, layer in layers.items()},
        }[kind]
        found[task] = Statistics(values, {name: Gathered(9) for name in values})
    return found


def form_by_trial(serve: Callable[[Mapping], Mapping], tasks: Iterable[str]) -> type[Served]:
    """Return the form in which a method serves these tasks, found by a tiny layer of each.

    A single task does not tell whether its vector is for all: a second one is made up.
    """
    tiny = {task: {"layer": torch.eye(2)} for task in tasks}
    serve = with_tiny_weights(serve)
    with unseen():
        form = form_of(serve(tiny))
        if len(tiny) == 1 and form is Shared:  # only then: others may have a knob that names tasks
            form = form_of(serve(tiny | {f"{next(iter(tiny))} too": {"layer": torch.eye(2)}}))
    return form


def is_entrywise(serve: Callable[[Mapping], Mapping], tasks: Iterable[str]) -> bool:
    """Return whether a method merges entry by entry, found by a tiny matrix of each task."""
    serve = with_tiny_weights(serve)
    with unseen():
        vector = next(iter(serve({task: {"layer": torch.eye(2)} for task in tasks}).values()))
        lazy = isinstance(vector, LazyVector)
        return lazy and all(part.entrywise for part in vector.parts("layer"))


def with_tiny_weights(serve: Callable[[Mapping], Mapping]) -> Callable[[Mapping], Mapping]:
    """Return a method that sees the pretrained weights with those of the trial's tiny layer."""
    bound = isinstance(serve, partial) and PRETRAINED in serve.keywords
    return partial(serve, **{PRETRAINED: {"layer": torch.eye(2)}}) if bound else serve


@contextmanager
def unseen() -> Iterator[None]:
    """Show no warnings and no progress: they would be of the trial, not of the user's tasks."""
    token = observer.set(lambda steps, total, label: steps)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        observer.reset(token)
