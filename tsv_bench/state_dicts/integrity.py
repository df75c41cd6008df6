"""Checkpoint files read once, for their sha256 and for values that are not finite."""

import hashlib
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from tsv_bench.files import Stamp, remembered_sha256, stamp
from tsv_bench.linalg.precision import all_finite
from tsv_bench.state_dicts.safetensors_file import changed
from tsv_bench.state_dicts.state_dict import StateDict


def content_hash(path: Path) -> str:
    """Return the sha256 of a file, read once; or the name that it has for that in a hub's cache."""
    real = path.resolve()
    if real.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", real.name):
        return real.name  # verified when it was fetched
    return remembered_sha256(real)


def hash_weights(state: Mapping[str, Tensor], sequence: type[tuple] | type[list]) -> str:
    """Return the sha256 of names, dtypes, shapes and bytes, in the order of the names.

    It does not depend on the file format. ``sequence`` says how the hashed text writes a shape,
    (2, 3) or [2, 3]: hashes of both kinds stand in files that must still be read.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {sequence(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


BLOCK = 2**18  # entries that are checked and hashed at once: few enough for a core's cache

Hashes = dict[str, str]  # file name -> sha256


def check_finite(state: StateDict) -> None:
    """Raise ValueError that names the first parameter with NaN or infinity."""
    for shard in state.shards:
        _check_shard(state, shard, lambda rows: None)


def checked_hashes(state: StateDict) -> Hashes:
    """Return the sha256 of each file of a checkpoint, after the check of `check_finite`.

    A file is read again only if it has changed. Raises ValueError, too, for a file that changed
    since it was opened: hashes are of the values that ``state`` reads.
    """
    hashes = {}
    for path in state.files:
        key = path, state.stamps[path.name]
        if key not in _checked:
            _checked[key] = _check_and_hash(state, path)
        hashes[path.name] = _checked[key]
    return hashes


_checked: dict[tuple[Path, Stamp], str] = {}


def _check_and_hash(state: StateDict, path: Path) -> str:
    header = state.headers[path.name]
    if header is None:
        _check_shard(state, path.name, lambda rows: None)
        of_path = remembered_sha256(path)
        if stamp(path) != state.stamps[path.name]:
            raise changed(path)
        return of_path
    digest = hashlib.sha256(header)
    _check_shard(state, path.name, lambda rows: digest.update(_bytes(rows)))
    return digest.hexdigest()


def _check_shard(state: StateDict, shard: str, see: Callable[[Tensor], object]) -> None:
    """Check the values of one file; ``see`` gets its content, block by block."""
    for name in state.shards[shard]:
        shape = state.shape(name)
        num_rows = shape[0] if shape else 1
        step = max(1, BLOCK * num_rows // max(shape.numel(), 1))
        for start in range(0, num_rows, step):
            rows = state.rows(name, start, start + step)
            see(rows)
            if rows.is_floating_point() and not all_finite(rows):
                raise ValueError(
                    f"{state.path} holds NaN or infinity in {name!r}. Its training diverged or the "
                    f"file is damaged: delete it and make or fetch it again."
                )


def _bytes(rows: Tensor) -> memoryview:
    return memoryview(rows.reshape(-1).view(torch.uint8).numpy())


def check_contents(
    states: Mapping[str, StateDict], done: Callable[[], object]
) -> dict[str, Hashes]:
    """Return the hashes of all checkpoints, by their keys, after the check of `check_finite`.

    Checkpoints are read side by side, one thread each; ``done`` is called after each. Raises
    ValueError that names the first checkpoint with a value that is not finite.
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
