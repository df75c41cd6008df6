"""Zero-shot heads: a frozen linear classifier from a task's prompts (CLIP, arXiv:2103.00020)."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from tsv_bench.data import Task
from tsv_bench.files import replace_atomically
from tsv_bench.models.backbone import Backbone

log = logging.getLogger(__name__)

# Heads this process has built or read: text does not change while methods do.
_built: dict[str, Tensor] = {}


def zero_shot_head(backbone: Backbone, task: Task, folder: Path | None = None) -> Tensor:
    """One task's head, as `zero_shot_heads`, which for several tasks reads the text tower once."""
    return zero_shot_heads(backbone, {task.name: task}, folder)[task.name]


def zero_shot_heads(
    backbone: Backbone, tasks: Mapping[str, Task], folder: Path | None = None
) -> dict[str, Tensor]:
    """Weights [classes, dim]: per class the mean of its normalized prompts, normalized, scaled.

    Normalized image features times these are the logits (logit scale included). Kept in memory
    and, with a ``folder``, in files there. The text tower is read once for all that are missing,
    and let go.
    """
    try:
        bar = tqdm(tasks.items(), desc="heads", unit="task", leave=False, delay=2)
        return {name: find_head(backbone, task, folder) for name, task in bar}
    finally:
        backbone.release_text()


def find_head(backbone: Backbone, task: Task, folder: Path | None) -> Tensor:
    """The head from memory or its file, else built and kept in both."""
    key = head_key(backbone, task)
    path = folder and Path(folder) / backbone.name / f"{task.name}-{key[:12]}.safetensors"
    if key not in _built and path and path.exists():
        try:
            _built[key] = read_head(path, key)
        except ValueError as error:
            log.warning(f"{error} This head is built again.")
            path.unlink(missing_ok=True)
    if key not in _built:
        _built[key] = build_head(backbone, task)
    if path and not path.exists():
        write_head(path, _built[key], key)
    return _built[key]


def head_key(backbone: Backbone, task: Task) -> str:
    """A hash of all that a head is made of: both towers' weights and the prompts."""
    made_of = [
        backbone.fingerprint,
        backbone.text_fingerprint(),
        backbone.logit_scale,
        task.prompts,
    ]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()


@torch.no_grad()
def build_head(backbone: Backbone, task: Task) -> Tensor:
    prompts = [prompt for of_class in task.prompts for prompt in of_class]
    texts = F.normalize(backbone.encode_text(prompts), dim=-1)
    classes = texts.view(len(task.prompts), len(task.templates), -1).mean(dim=1)
    return backbone.logit_scale * F.normalize(classes, dim=-1)


def write_head(path: Path, head: Tensor, key: str) -> None:
    metadata = {"key": key, "sha256": sha256_of(head)}
    replace_atomically(path, lambda temporary: save_file({"head": head}, temporary, metadata))


def read_head(path: Path, key: str) -> Tensor:
    """What `write_head` wrote. ValueError when it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata, head = file.metadata(), file.get_tensor("head")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if metadata != {"key": key, "sha256": sha256_of(head)}:
        raise ValueError(f"{path} is damaged: its hash is not the one it was written with.")
    return head


def sha256_of(head: Tensor) -> str:
    return hashlib.sha256(head.contiguous().view(torch.uint8).numpy()).hexdigest()
