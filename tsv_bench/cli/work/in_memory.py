"""Merge models in memory, by the methods, knobs and defaults of the commands.

import tsv_bench
merged = tsv_bench.merge(base, {"a": model_a, "b": "b.safetensors"}, method="ties", density=0.1)
base.load_state_dict(merged)
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tsv_bench import bars
from tsv_bench.cli.config.scales import settled_alpha
from tsv_bench.cli.work.named_method import named_method
from tsv_bench.merging.arguments import check_arguments, check_layer_alphas, check_weights
from tsv_bench.merging.as_matrices import AsMatrices
from tsv_bench.merging.scaling.layer_alphas import LayerAlphas
from tsv_bench.merging.scaling.task_weights import Weighted
from tsv_bench.methods.forms import Served, Shared
from tsv_bench.methods.served import form_by_trial, served_by
from tsv_bench.state_dicts.adapters.adapted import open_checkpoint
from tsv_bench.state_dicts.entries.kinds import is_running
from tsv_bench.state_dicts.entries.quantized import check_integers, check_unscaled
from tsv_bench.state_dicts.inputs import check_changes, check_tasks
from tsv_bench.state_dicts.open_vectors import open_task_vector
from tsv_bench.state_dicts.overflow import fitted
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.task_vectors.lazy import LazyMapping, as_lazy
from tsv_bench.task_vectors.streaming import stream
from tsv_bench.task_vectors.task_vector import TaskVector

log = logging.getLogger(__name__)

Checkpoint = Mapping[str, Tensor] | nn.Module | Path | str


def merge(
    pretrained: Checkpoint,
    finetuned: Mapping[str, Checkpoint],
    method: str = "tsv_merge",
    *,
    alpha: float | Mapping[str, float] | None = None,
    alpha_by_depth: Sequence[float] | None = None,
    weights: Mapping[str, float] | None = None,
    stacked: bool = False,
    kernels: bool = False,
    device: str = "cpu",
    progress: bool = True,
    knobs: Mapping[str, Any] | None = None,
    **more_knobs: Any,
) -> dict[str, Any]:
    """Return the merged state dict, in the pretrained one's types; inputs are left alone.

    A checkpoint is a state dict, a module, or the path of one. ``method`` is a name of conf/method,
    its knobs are further keywords, or stand in ``knobs``. ``alpha``, ``alpha_by_depth``,
    ``weights``, ``stacked`` and ``kernels`` are those of tsv-merge, with its defaults. A method
    that serves each task its own vector returns task -> state dict. The result lies where the
    pretrained tensors do.

    Raises ValueError for what tsv-merge refuses, and for a method that needs data or serves more
    than weights.
    """
    check_tasks(finetuned)
    chosen, said = named_method(method, {**(knobs or {}), **more_knobs})
    chosen.check_tasks(finetuned)
    if chosen.needs:
        what = ", ".join(chosen.needs.arguments)
        raise ValueError(
            f"method={method!r} needs {what} beside the weights, which tsv-merge or tsv-bench give "
            f"it. In memory there are weights alone."
        )
    alphas = _alphas(alpha, alpha_by_depth, settled_alpha(said, len(finetuned), weights))
    serve = chosen.by_default().serve
    if stacked or kernels:
        if "exclude" not in said.knobs:
            raise ValueError(
                f"stacked= and kernels= have no effect on method={method!r}: it takes no matrices "
                f"apart."
            )
        serve = AsMatrices(serve, stacked, kernels)
    if weights is not None:
        rule = said.task_weights(len(finetuned))
        if rule is None:
            raise ValueError(f"weights= has no effect on method={method!r}: it sums nothing.")
        check_weights(weights, finetuned, rule)
        serve = Weighted(serve, weights, rule)

    base = _opened("pretrained", pretrained)
    like = pretrained if isinstance(pretrained, str | Path) else "a state dict"
    states = {task: _opened(task, given, like) for task, given in finetuned.items()}
    vectors = {task: _vector(task, base, state, device) for task, state in states.items()}
    check_integers(base, {t: s for t, s in states.items() if type(vectors[t]) is TaskVector})
    of_layers = alphas.of(base)
    check_changes(vectors, "the pretrained one")
    form = form_by_trial(serve, finetuned)
    if not issubclass(form, Served) or form.__name__ in ("Adapted", "Routed"):
        raise ValueError(
            f"method={method!r} serves more than weights, which no state dict holds. tsv-bench "
            f"evaluates it."
        )
    served = served_by(serve, vectors, method)
    finish = partial(_finished, base, of_layers)
    if form is Shared:
        of_all = partial(finish, list(vectors.values()))
        return _state_dict(base, next(iter(served.values())), of_all, "merging", progress)
    return {
        task: _state_dict(base, served[task], partial(finish, [vectors[task]]), task, progress)
        for task in served
    }


def _alphas(
    alpha: float | Mapping[str, float] | None, by_depth: Sequence[float] | None, default: float
) -> LayerAlphas:
    patterns = dict(alpha) if isinstance(alpha, Mapping) else {}
    check_layer_alphas(patterns, by_depth or ())
    number = default if alpha is None or patterns else alpha
    check_arguments(number, "model", "float32")
    return LayerAlphas(default=number, patterns=patterns, by_depth=tuple(by_depth or ()))


def _opened(name: str, given: Checkpoint, pretrained: str | Path | None = None) -> LazyMapping:
    """Return a checkpoint's tensors. Raises ValueError or OSError that names it.

    ``pretrained``: what a fine-tuned one is compared with.
    """
    try:
        if isinstance(given, str | Path):
            state = open_checkpoint(given, pretrained)
            check_unscaled(state)
            return state
        if isinstance(given, nn.Module):
            given = given.state_dict()
        if not isinstance(given, Mapping) or not given:
            raise ValueError(f"{type(given).__name__} is no state dict, module or path.")
        for key, tensor in given.items() if isinstance(given, dict) else ():
            if not isinstance(tensor, Tensor):
                raise ValueError(f"{key!r} is a {type(tensor).__name__} and no tensor.")
        check_unscaled(as_lazy(given))
        return as_lazy(given)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except OSError as error:
        raise type(error)(f"{name}: {error}") from error


def _vector(task: str, base: LazyMapping, tuned: LazyMapping, device: str) -> TaskVector:
    try:
        if isinstance(tuned, StateDict):
            return open_task_vector(base, tuned, device)
        return TaskVector(base, tuned, device)
    except ValueError as error:
        raise ValueError(f"{task}: {error}") from error


def _finished(
    base: LazyMapping,
    alphas: Mapping[str, float],
    vectors: Sequence[TaskVector],
    name: str,
    start: int,
    rows: Tensor,
) -> Tensor:
    """Return the model's rows, in the pretrained type; running statistics are averaged."""
    stop = start + (len(rows) if rows.ndim else 1)
    with torch.no_grad():
        weights = base.wide_rows(name, start, stop, rows.device)
        if is_running(name):  # as in files: a variance must not be below zero
            deltas = [vector.rows(name, start, stop).to(weights) for vector in vectors]
            return fitted(name, weights + sum(deltas) / len(deltas), base.dtype(name))
        return fitted(name, weights.add(rows, alpha=alphas[name]), base.dtype(name))


def _state_dict(
    base: LazyMapping, vector: LazyMapping, finish: Any, label: str, progress: bool
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    with (
        torch.no_grad(),
        bars.bar(total=len(vector), desc=label, unit="layer", disable=not progress) as bar,
    ):
        for name, start, rows in stream(vector, finish):
            if name not in found:
                place = base.rows(name, 0, 1).device
                found[name] = torch.empty(base.shape(name), dtype=base.dtype(name), device=place)
                bar.update()
            if rows.ndim:
                found[name][start : start + len(rows)] = rows
            else:
                found[name].copy_(rows)
    # In the pretrained order; what has no delta, such as an integer buffer, as it is there.
    return {name: found[name] if name in found else base[name].clone() for name in base}
