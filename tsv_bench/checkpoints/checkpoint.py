"""A fine-tuned checkpoint on disk, and the record beside it."""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from tsv_bench.files import (
    check_leases,
    read_small,
    remembered_sha256,
    replace_atomically,
    replace_text,
    sha256,
)
from tsv_bench.scores import Score

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One fine-tuned image tower on disk."""

    path: Path
    sha256: str
    generation: str  # "finetune" (ours), "original" (the paper's), "fixed" (re-released), "other"
    scores: dict[str, Score] | None  # on "val" and "test"; None: not evaluated yet

    @property
    def identity(self) -> dict[str, str]:
        """What a Run says of it."""
        return {"sha256": self.sha256, "generation": self.generation}


def save_checkpoint(
    path: Path, state: Mapping[str, Tensor], record: Mapping[str, Any]
) -> dict[str, Any]:
    """Write weights to ``path`` and the record beside it, as .json; return the record.

    Each file is written whole or not at all, the json last: without one the checkpoint is not
    finished, nor is one that replaces another. The record gets the file's sha256.
    """
    check_leases()
    path.with_suffix(".json").unlink(missing_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    replace_atomically(path, lambda temporary: save_file(tensors, temporary))
    record = {**record, "sha256": sha256(path)}
    text = json.dumps(record, indent=1)
    replace_text(path.with_suffix(".json"), text)
    return record


def load_record(path: Path) -> dict[str, Any] | None:
    """Return the record beside the checkpoint at ``path``, or None if that is not finished.

    Raises ValueError if the weights are not those that were written.
    """
    beside = path.with_suffix(".json")
    try:
        content = read_small(beside)
        record = json.loads(content)
        expected = record["sha256"]
        found = remembered_sha256(path)  # a command asks again before it reads the weights
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        log.warning(f"{beside} is damaged; what it describes is made again")
        return None
    if found == expected:
        return record
    with suppress(FileNotFoundError):
        if read_small(beside) == content:
            raise ValueError(
                f"{path} is not what was written there: its sha256 differs from the one in "
                f"{beside.name}. Delete both files to make the checkpoint again."
            )
    return load_record(path)  # another process is replacing both
