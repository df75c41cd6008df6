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
from tsv_bench.merging.arguments import (
    check_arguments,
    check_layer_alphas,
    check_mean,
    check_weights,
)
from tsv_bench.merging.as_matrices import AsMatrices
from tsv_bench.merging.scaling.layer_alphas import LayerAlphas
from tsv_bench.merging.scaling.task_weights import Weighted
from tsv_bench.methods.forms import Served, Shared
from tsv_bench.methods.served import form_by_trial, served_by
from tsv_bench.state_dicts.adapters.adapter import is_adapter
from tsv_bench.state_dicts.entries.choices import Choices
from tsv_bench.state_dicts.entries.given import IN_MEMORY, given_state_dict
from tsv_bench.state_dicts.entries.kinds import is_running
from tsv_bench.state_dicts.entries.wrappers import tensors_of, weights_in
from tsv_bench.state_dicts.inputs import Inputs, check_deltas, check_tasks, open_inputs
from tsv_bench.state_dicts.integrity import check_finite
from tsv_bench.state_dicts.overflow import fitted
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.task_vectors.lazy import LazyMapping
from tsv_bench.task_vectors.streaming import stream
from tsv_bench.task_vectors.task_vector import TaskVector

log = logging.getLogger(__name__)

Checkpoint = Mapping[str, Tensor] | nn.Module | Path | str


def merge(
    pretrained: Checkpoint | None,
    finetuned: Mapping[str, Checkpoint],
    method: str = "tsv_merge",
    *,
    alpha: float | Mapping[str, float] | None = None,
    alpha_by_depth: Sequence[float] | None = None,
    weights: Mapping[str, float] | None = None,
    stacked: bool = False,
    kernels: bool = False,
    shared_only: bool = False,
    rest_from: str | None = None,
    embeddings: str | None = None,
    device: str = "cpu",
    progress: bool = True,
    knobs: Mapping[str, Any] | None = None,
    **more_knobs: Any,
) -> dict[str, Any]:
    """Return the merged state dict, in the pretrained one's types; inputs are left alone.

    A checkpoint is a state dict, a module, or the path of one. ``pretrained`` may be None for
    methods that take a mean of models: the first then stands in for it. ``method`` is a name of
    conf/method, its knobs are further keywords, or stand in ``knobs``. ``alpha``,
    ``alpha_by_depth``, ``weights``, ``stacked``, ``kernels``, ``shared_only``, ``rest_from`` and
    ``embeddings`` are those of tsv-merge, with its defaults; names are paired as it does
    (docs/inputs.md). A method that serves each task its own vector returns task -> state dict. The
    result lies where the pretrained tensors do; entries that are tied share their memory.

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
    if pretrained is None:
        if not said.without_pretrained:
            raise ValueError(
                f"method={method!r} merges differences from a pretrained model: give it."
            )
        check_mean(finetuned, {"alpha": alpha, "alpha_by_depth": alpha_by_depth})
    choices = Choices(shared_only=shared_only, rest_from=rest_from, embeddings=embeddings)
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

    inputs = _inputs(pretrained, finetuned, device, choices)
    of_layers = alphas.of(next(iter(inputs.vectors.values())))
    form = form_by_trial(serve, finetuned)
    if not issubclass(form, Served) or form.__name__ in ("Adapted", "Routed"):
        raise ValueError(
            f"method={method!r} serves more than weights, which no state dict holds. tsv-bench "
            f"evaluates it."
        )
    served = served_by(serve, inputs.vectors, method)
    places = _places(next(iter(finetuned.values())) if pretrained is None else pretrained)
    finish = partial(_finished, inputs.pretrained, of_layers)
    if form is Shared:
        of_all = partial(finish, list(inputs.vectors.values()))
        vector = next(iter(served.values()))
        return _state_dict(inputs, vector, of_all, places, "merging", progress)
    return {
        task: _state_dict(
            inputs, served[task], partial(finish, [inputs.vectors[task]]), places, task, progress
        )
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


def _inputs(
    pretrained: Checkpoint | None,
    finetuned: Mapping[str, Checkpoint],
    device: str,
    choices: Choices,
) -> Inputs:
    """Open and check the checkpoints as those of tsv-merge are. Raises ValueError or OSError."""
    base = None if pretrained is None else _opened("pretrained", pretrained)
    opened = {task: _opened(task, given) for task, given in finetuned.items()}
    inputs = open_inputs(base, opened, device, choices=choices).once_each()
    for name, state in inputs.states.items():
        try:
            check_finite(state, partial(inputs.alike, name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    check_deltas(inputs)
    return inputs


def _opened(name: str, given: Checkpoint) -> StateDict | Path | str:
    """Return a checkpoint's tensors, or its path. Raises ValueError that names it."""
    if isinstance(given, str | Path):
        return given
    try:
        if isinstance(given, nn.Module):
            given = given.state_dict()
        if not isinstance(given, Mapping) or not given:
            raise ValueError(f"{type(given).__name__} is no state dict, module or path.")
        state = given_state_dict(given)
        if is_adapter(state) and state.path == IN_MEMORY:
            raise ValueError("these are a LoRA adapter's factors: give the path of its folder.")
        return state
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _places(pretrained: Checkpoint) -> dict[str, torch.device]:
    """Return the device of each pretrained tensor that does not lie in ordinary memory."""
    if isinstance(pretrained, nn.Module):
        pretrained = pretrained.state_dict()
    if not isinstance(pretrained, dict):
        return {}
    tensors = tensors_of(weights_in(IN_MEMORY, pretrained))
    return {name: tensor.device for name, tensor in tensors.items() if tensor.device.type != "cpu"}


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
    inputs: Inputs,
    vector: LazyMapping,
    finish: Any,
    places: Mapping[str, torch.device],
    label: str,
    progress: bool,
) -> dict[str, Tensor]:
    base, found = inputs.base, {}
    with (
        torch.no_grad(),
        bars.bar(total=len(vector), desc=label, unit="layer", disable=not progress) as bar,
    ):
        for name, start, rows in stream(vector, finish):
            if name not in found:
                shape, dtype = base.shape(name), base.dtype(name)
                found[name] = torch.empty(shape, dtype=dtype, device=places.get(name))
                bar.update()
            if rows.ndim:
                found[name][start : start + len(rows)] = rows
            else:
                found[name].copy_(rows)
    for name, first in inputs.tied.items():
        found[name] = found[first]
    # In the pretrained order; what is not merged, such as an integer buffer, as it is there.
    return {
        name: found[name] if name in found else base[name].to(places.get(name)) for name in base
    }
