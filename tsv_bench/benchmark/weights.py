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
from tsv_bench.methods.forms import Adapted
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
    together in <method>.adapters.safetensors: <task>.down and <task>.up. Raises ValueError if a
    value does not fit the pretrained dtype.
    """
    one = len({id(vector) for vector in served.values()}) == 1
    names = {run.method: next(iter(served))} if one else {task: task for task in served}
    paths = []
    for name, task in names.items():
        model = task_vector.apply(pretrained, served[task], run.alpha)
        tensors = {
            layer: fitted(layer, param, param.dtype).cpu().contiguous()
            for layer, param in model.items()
        }
        about = how_made(run) | ({} if one else {"task": task})
        paths.append(_write(tensors, about, Path(folder) / f"{name}.safetensors"))
    if isinstance(served, Adapted):
        tensors = {
            f"{task}.{name}": tensor.cpu().contiguous()
            for task, adapter in served.adapters.items()
            for name, tensor in adapter.tensors.items()
        }
        path = Path(folder) / f"{run.method}.adapters.safetensors"
        paths.append(_write(tensors, how_made(run), path))
    return paths


def _write(tensors: Mapping[str, Tensor], about: Mapping[str, Any], path: Path) -> Path:
    replace_atomically(path, partial(save_file, tensors, metadata={MADE_BY: json.dumps(about)}))
    return path


def how_made(run: Run) -> dict[str, Any]:
    """Return the metadata of a Run's weights: method, knobs, alpha, the hashes of the inputs."""
    names = ("backbone", "suite", "method", "knobs", "task_knobs", "alpha", "checkpoints")
    return {name: getattr(run, name) for name in (*names, "fingerprint", "versions", "commit")}
