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
    each. tsv-merge reads them as any checkpoint. Raises ValueError if a value does not fit the
    pretrained dtype.
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
        path = Path(folder) / f"{name}.safetensors"
        replace_atomically(path, partial(save_file, tensors, metadata={MADE_BY: json.dumps(about)}))
        paths.append(path)
    return paths


def how_made(run: Run) -> dict[str, Any]:
    """Return the metadata of a Run's weights: method, knobs, alpha, the hashes of the inputs."""
    names = ("backbone", "suite", "method", "knobs", "task_knobs", "alpha", "checkpoints")
    return {name: getattr(run, name) for name in (*names, "fingerprint", "versions", "commit")}
