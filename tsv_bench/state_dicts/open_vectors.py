"""Task vectors of checkpoint files: opened, compared, checked, their factors remembered."""

import hashlib
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.state_dicts.integrity import Hashes, checked_hashes
from tsv_bench.state_dicts.low_rank import (
    CompressedStateDict,
    CompressedTaskVector,
    StoredTaskVector,
    is_compressed,
)
from tsv_bench.state_dicts.masked import MaskedStateDict, is_masked
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.task_vectors.lazy import Triplets, shape_of
from tsv_bench.task_vectors.task_vector import TaskVector, is_changed

log = logging.getLogger(__name__)

Opened = TypeVar("Opened")


def check_tasks(finetuned: Mapping[str, Path | str]) -> None:
    """ValueError unless there are tasks, with names that files can have."""
    if not finetuned:
        raise ValueError("no fine-tuned checkpoints: give at least one, as in {cars: cars.pt}.")
    for task in finetuned:
        if task in ("pretrained", "", ".", "..") or Path(task).name != task:
            raise ValueError(f"the task's name {task!r} cannot be a file's name. Choose another.")


def named(name: str, open_one: Callable[[], Opened]) -> Opened:
    """What ``open_one`` gives; an error says for which checkpoint."""
    try:
        return open_one()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except OSError as error:
        raise type(error)(f"{name}: {error}") from error


def check_changes(
    pretrained: StateDict, vectors: Mapping[str, TaskVector], hashes: Mapping[str, Hashes]
) -> None:
    """ValueError when no task changed anything; a warning for one that did not."""
    same = [
        task
        for task, vector in vectors.items()
        # Small layers first: what trains anything trains one of these, mostly.
        if not any(is_changed(vector, name) for name in by_size(vector))
    ]
    if len(same) == len(vectors):
        raise ValueError(
            f"every fine-tuned checkpoint equals the pretrained one at {pretrained.path}: there is "
            f"nothing to merge. Was the same file given twice?"
        )
    for task in same:
        log.warning(f"{task} equals the pretrained checkpoint: it changes nothing.")


def by_size(vector: Mapping[str, Tensor]) -> list[str]:
    return sorted(vector, key=lambda name: shape_of(vector, name).numel())


class RememberedTaskVector(TaskVector):
    """A task vector whose singular triplets are kept in a factor cache."""

    def __init__(
        self,
        pretrained: Mapping[str, Tensor],
        finetuned: Mapping[str, Tensor],
        device: str,
        factors: FactorCache,
        pair: str,
    ) -> None:
        super().__init__(pretrained, finetuned, device)
        self._factors, self._pair = factors, pair

    def rank_ahead(self, full_rank: int) -> int:
        return math.ceil(full_rank * self._factors.ahead)

    def recall(self, name: str, rank: int, kind: str) -> Triplets | None:
        found = self._factors.recall(self._pair, name, kind, rank)
        return found and tuple(part.to(self._device) for part in found)

    def keep(self, name: str, triplets: Triplets, kind: str) -> None:
        self._factors.keep(self._pair, name, kind, triplets)


def open_task_vector(
    pretrained: Mapping[str, Tensor],
    finetuned: StateDict,
    device: str = "cpu",
    factors: FactorCache | None = None,
    pair: str = "",
) -> TaskVector:
    """The task vector of a checkpoint file, compressed or not.

    ``pair`` identifies the weights of both; needed with ``factors``.
    """
    if is_compressed(finetuned):
        return CompressedTaskVector(pretrained, CompressedStateDict(pretrained, finetuned), device)
    if is_masked(finetuned):
        masked = MaskedStateDict(pretrained, finetuned)
        checked_hashes(masked.shared)  # no NaN; read once for all tasks
        return StoredTaskVector(pretrained, masked, device)
    if factors is None:
        return TaskVector(pretrained, finetuned, device)
    return RememberedTaskVector(pretrained, finetuned, device, factors, pair)


def pair_of(*identities: str) -> str:
    """The name that a pretrained and a fine-tuned checkpoint have in the factor cache."""
    return hashlib.sha256(" ".join(identities).encode()).hexdigest()[:24]
