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
from tsv_bench.state_dicts.writer import MADE_BY
from tsv_bench.task_vectors import task_vector


def write_weights(
    run: Run,
    pretrained: Mapping[str, Tensor],
    served: Mapping[str, Mapping[str, Tensor]],
    folder: Path,
) -> list[Path]:
    """``pretrained + alpha * served``, with the names of the image tower: files to merge again.

    <method>.safetensors when all tasks are served one vector, else <task>.safetensors for each.
    """
    one = len({id(vector) for vector in served.values()}) == 1
    names = {run.method: next(iter(served))} if one else {task: task for task in served}
    paths = []
    for name, task in names.items():
        model = task_vector.apply(pretrained, served[task], run.alpha)
        tensors = {layer: param.cpu().contiguous() for layer, param in model.items()}
        about = how_made(run) | ({} if one else {"task": task})
        path = Path(folder) / f"{name}.safetensors"
        replace_atomically(path, partial(save_file, tensors, metadata={MADE_BY: json.dumps(about)}))
        paths.append(path)
    return paths


def how_made(run: Run) -> dict[str, Any]:
    """The method, its knobs, alpha and the hashes of all that it took."""
    names = ("backbone", "suite", "method", "knobs", "task_knobs", "alpha", "checkpoints")
    return {name: getattr(run, name) for name in (*names, "fingerprint", "versions", "commit")}
