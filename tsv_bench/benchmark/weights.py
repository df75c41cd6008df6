"""The weights that a Run evaluated, as files that say how they were made."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from tsv_bench.benchmark.runs import Run
from tsv_bench.files import replace_atomically
from tsv_bench.methods.forms import Adapted, Routed
from tsv_bench.state_dicts.overflow import fitted
from tsv_bench.state_dicts.writer import MADE_BY
from tsv_bench.task_vectors import task_vector


def write_weights(
    run: Run,
    pretrained: Mapping[str, Tensor],
    served: Mapping[str, Mapping[str, Tensor]],
    folder: Path,
) -> list[Path]:
    """Write pretrained + alpha * served, under the names of the image tower; return the files.

    One file, <method>.safetensors, if all tasks are served one vector; else <task>.safetensors for
    each. tsv-merge reads them as any checkpoint. Adapters of features, if tasks have some, are
    together in <method>.adapters.safetensors: <task>.down and <task>.up. Of a method with a router
    a task's file is its expert alone; <method>.safetensors is what experts share, and
    <method>.router.safetensors has the router and what experts add to layers. Raises ValueError if
    a value does not fit the pretrained dtype.
    """
    one = len({id(vector) for vector in served.values()}) == 1
    names = {run.method: next(iter(served))} if one else {task: task for task in served}
    paths = []
    for name, task in names.items():
        model = task_vector.apply(pretrained, served[task], run.alpha)
        tensors = _fitted(model)
        about = how_made(run) | ({} if one else {"task": task})
        paths.append(_write(tensors, about, Path(folder) / f"{name}.safetensors"))
    if isinstance(served, Routed):
        shared = task_vector.apply(pretrained, served.routing.shared, run.alpha)
        paths.append(
            _write(_fitted(shared), how_made(run), Path(folder) / f"{run.method}.safetensors")
        )
    for name, tensors in _beside(served).items():
        tensors = {key: tensor.cpu().contiguous() for key, tensor in tensors.items()}
        path = Path(folder) / f"{run.method}.{name}.safetensors"
        paths.append(_write(tensors, how_made(run), path))
    return paths


def _fitted(model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        layer: fitted(layer, param, param.dtype).cpu().contiguous()
        for layer, param in model.items()
    }


def _beside(served: Mapping) -> dict[str, dict[str, Tensor]]:
    """Return name -> the tensors that belong to what is served, beside models."""
    if isinstance(served, Adapted):
        return {
            "adapters": {
                f"{task}.{name}": tensor
                for task, adapter in served.adapters.items()
                for name, tensor in adapter.tensors.items()
            }
        }
    if isinstance(served, Routed):
        experts = served.router.experts
        return {"router": dict(served.router.tensors) | (experts.tensors if experts else {})}
    return {}


def _write(tensors: Mapping[str, Tensor], about: Mapping[str, Any], path: Path) -> Path:
    replace_atomically(path, partial(save_file, tensors, metadata={MADE_BY: json.dumps(about)}))
    return path


def how_made(run: Run) -> dict[str, Any]:
    """Return the metadata of a Run's weights: method, knobs, alpha, the hashes of the inputs."""
    names = ("backbone", "suite", "method", "knobs", "task_knobs", "alpha", "checkpoints")
    return {name: getattr(run, name) for name in (*names, "fingerprint", "versions", "commit")}
