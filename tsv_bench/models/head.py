"""Zero-shot heads: frozen linear classifiers made of prompts (CLIP, arXiv:2103.00020)."""

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tsv_bench import bars
from tsv_bench.data import Task
from tsv_bench.files import leased, replace_atomically
from tsv_bench.models.backbone import Backbone

log = logging.getLogger(__name__)

# Heads that this process has built or read: every method of a comparison uses the same.
_built: dict[str, Tensor] = {}


def zero_shot_head(backbone: Backbone, task: Task, folder: Path | None = None) -> Tensor:
    """Return one task's head; `zero_shot_heads` makes several and reads the text tower once."""
    return zero_shot_heads(backbone, {task.name: task}, folder)[task.name]


def zero_shot_heads(
    backbone: Backbone, tasks: Mapping[str, Task], folder: Path | None = None
) -> dict[str, Tensor]:
    """Return the tasks' heads, float32 [classes, dim].

    A class' weights are the mean of the normalized features of its prompts, normalized again and
    multiplied by the logit scale: with normalized image features they give the logits. Heads are
    kept in memory and, with a ``folder``, in files there. The text tower is read at most once, and
    freed afterwards.
    """
    try:
        bar = bars.bar(tasks.items(), desc="heads", unit="task", leave=False, delay=2)
        return {name: find_head(backbone, task, folder) for name, task in bar}
    finally:
        backbone.release_text()


def find_head(backbone: Backbone, task: Task, folder: Path | None) -> Tensor:
    """Return a head from memory or from its file; else build it and keep it in both.

    Of several processes one builds it. A folder that cannot be written to is read from, with a
    warning where a head is not kept.
    """
    key = head_key(backbone, task)
    path = folder and Path(folder) / backbone.name / f"{task.name}-{key[:12]}.safetensors"
    with ExitStack() as stack:
        if key not in _built and path and not path.exists():
            with suppress(OSError):  # that it cannot be written to is said below
                stack.enter_context(leased(path))
        if key not in _built and path and path.exists():
            try:
                _built[key] = read_head(path, key)
            except ValueError as error:
                log.warning(f"{error} This head is built again.")
                with suppress(OSError):
                    path.unlink()
        if key not in _built:
            _built[key] = build_head(backbone, task)
        if path and not path.exists():
            try:
                write_head(path, _built[key], key)
            except OSError as error:
                log.warning(f"the head of {task.name} is not kept for the next time: {error}")
    return _built[key]


def head_key(backbone: Backbone, task: Task) -> str:
    """Return a hash of what determines a head: both towers' weights and the prompts."""
    made_of = [
        backbone.fingerprint,
        backbone.text_fingerprint(),
        backbone.logit_scale,
        task.prompts,
    ]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()


@torch.no_grad()
def build_head(backbone: Backbone, task: Task) -> Tensor:
    """Return the head that the text tower makes of a task's prompts (see `zero_shot_heads`)."""
    prompts = [prompt for of_class in task.prompts for prompt in of_class]
    texts = F.normalize(backbone.encode_text(prompts), dim=-1)
    classes = texts.view(len(task.prompts), len(task.templates), -1).mean(dim=1)
    return backbone.logit_scale * F.normalize(classes, dim=-1)


def write_head(path: Path, head: Tensor, key: str) -> None:
    """Write a head with its `head_key` and the hash of its values."""
    metadata = {"key": key, "sha256": sha256_of(head)}
    replace_atomically(path, lambda temporary: save_file({"head": head}, temporary, metadata))


def read_head(path: Path, key: str) -> Tensor:
    """Read what `write_head` wrote. Raises ValueError if it is damaged or has another key."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata, head = file.metadata(), file.get_tensor("head")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if metadata != {"key": key, "sha256": sha256_of(head)}:
        raise ValueError(f"{path} is damaged: its hash is not the one it was written with.")
    return head


def sha256_of(head: Tensor) -> str:
    """Return the sha256 of a head's values as hexadecimal digits."""
    return hashlib.sha256(head.contiguous().view(torch.uint8).numpy()).hexdigest()
