"""Task vectors of checkpoint files: opened, compared, checked, their factors remembered."""

import hashlib
import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from tsv_bench.compressed import (
    CompressedStateDict,
    CompressedTaskVector,
    StoredTaskVector,
    is_compressed,
)
from tsv_bench.factor_cache import FactorCache
from tsv_bench.files import sha256
from tsv_bench.masked import MaskedStateDict, is_masked
from tsv_bench.state_dicts import StateDict
from tsv_bench.task_vectors import TaskVector, Triplets

CHECKED = 2**18  # entries that are checked and hashed while they are in a core's cache

Hashes = dict[str, str]  # file name -> sha256


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


def check_finite(state: StateDict) -> None:
    """ValueError that names the first parameter with NaN or infinity."""
    for shard in state.shards:
        _check_shard(state, shard, lambda rows: None)


def checked_hashes(state: StateDict) -> Hashes:
    """sha256 of the files of a checkpoint, all of it checked as by `check_finite`.

    A file is read only once, unless it changes.
    """
    for path in state.files:
        if _stamp(path) not in _checked:
            _checked[_stamp(path)] = _check_and_hash(state, path)
    return {path.name: _checked[_stamp(path)] for path in state.files}


_checked: dict[tuple[Path, int, int, int], str] = {}


def _stamp(path: Path) -> tuple[Path, int, int, int]:
    stat = os.stat(path)
    return path, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _check_and_hash(state: StateDict, path: Path) -> str:
    header = state.headers[path.name]
    if header is None:
        _check_shard(state, path.name, lambda rows: None)
        return sha256(path)
    digest = hashlib.sha256(header)
    _check_shard(state, path.name, lambda rows: digest.update(_bytes(rows)))
    return digest.hexdigest()


def _check_shard(state: StateDict, shard: str, see: Callable[[Tensor], object]) -> None:
    """As `check_finite`, of one file; ``see`` gets its content, block by block."""
    for name in state.shards[shard]:
        shape = state.shape(name)
        num_rows = shape[0] if shape else 1
        step = max(1, CHECKED * num_rows // max(shape.numel(), 1))
        for start in range(0, num_rows, step):
            rows = state.rows(name, start, start + step)
            see(rows)
            if not rows.is_floating_point():
                continue
            # The sum first: one pass without a copy. It may overflow where no entry does.
            total = rows.sum(dtype=torch.float32 if rows.dtype.itemsize < 8 else None)
            if not total.isfinite() and not rows.isfinite().all():
                raise ValueError(
                    f"{state.path} holds NaN or infinity in {name!r}. Its training diverged or the "
                    f"file is damaged: delete it and make or fetch it again."
                )


def _bytes(rows: Tensor) -> memoryview:
    return memoryview(rows.reshape(-1).view(torch.uint8).numpy())


def check_contents(
    states: Mapping[str, StateDict], done: Callable[[], object]
) -> dict[str, Hashes]:
    """The hashes of all checkpoints, once every value in them is found finite.

    ValueError names the first that is not, by its key. Files are read side by side, one thread
    each; ``done`` is called after each checkpoint.
    """

    def check(name: str) -> Hashes:
        torch.set_num_threads(1)
        try:
            hashes = checked_hashes(states[name])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        done()
        return hashes

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        try:
            return dict(zip(states, pool.map(check, states), strict=True))
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
