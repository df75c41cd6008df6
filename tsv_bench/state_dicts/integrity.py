"""Checkpoint files read once, for their sha256 and for values that are not finite.

Either before any work, by `check_contents`, or while a merge reads them, by `HashedReading`.
"""

import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tsv_bench.files import Stamp, remembered_sha256, stamp
from tsv_bench.files.ahead import is_hashed_ahead, sha256_ahead
from tsv_bench.linalg.precision import all_finite
from tsv_bench.state_dicts.safetensors_file import SafetensorsFile, changed
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.task_vectors.streaming import side_by_side


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


# Whether rows that are not finite may be: called with an entry's name, the first row, the rows.
Alike = Callable[[str, int, Tensor], bool]


def _never(name: str, start: int, rows: Tensor) -> bool:
    return False


def check_finite(state: StateDict, alike: Alike = _never) -> None:
    """Raise ValueError that names the first parameter with NaN or infinity, but for ``alike``."""
    for shard in state.shards:
        _check_shard(state, shard, lambda rows: None, alike)


def checked_hashes(state: StateDict, alike: Alike = _never) -> Hashes:
    """Return the sha256 of each file of a checkpoint, after the check of `check_finite`.

    A file is read again only if it has changed. Raises ValueError, too, for a file that changed
    since it was opened: hashes are of the values that ``state`` reads.
    """
    hashes = {}
    for path in state.files:
        key = path, state.stamps[path.name]
        if key not in _checked:
            _checked[key] = _check_and_hash(state, path, alike)
        hashes[path.name] = _checked[key]
    return hashes


_checked: dict[tuple[Path, Stamp], str] = {}


def _check_and_hash(state: StateDict, path: Path, alike: Alike) -> str:
    header = state.headers[path.name]
    if header is None or is_hashed_ahead(path):
        _check_shard(state, path.name, lambda rows: None, alike)
        return _hash_by_path(path, state.stamps[path.name])
    hashed = _Hashed(header)
    offset = len(header)

    def see(rows: Tensor) -> None:
        nonlocal offset
        content = _bytes(rows)
        hashed.add(offset, content)
        offset += len(content)

    _check_shard(state, path.name, see, alike)
    return hashed.hexdigest()


class _Hashed:
    """The sha256 of a file's bytes up to a `position`."""

    def __init__(self, header: bytes) -> None:
        self._digest, self.position = hashlib.sha256(header), len(header)

    def add(self, offset: int, content: memoryview | bytes) -> None:
        """Hash what is new of ``content``, which starts at the position or before it."""
        new = memoryview(content)[max(0, self.position - offset) :]
        self._digest.update(new)
        self.position += len(new)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _hash_by_path(path: Path, stamp_when_opened: Stamp) -> str:
    ahead = sha256_ahead(path, stamp_when_opened) if is_hashed_ahead(path) else None
    found = ahead or remembered_sha256(path)
    if stamp(path) != stamp_when_opened:
        raise changed(path)
    return found


def _check_shard(
    state: StateDict, shard: str, see: Callable[[Tensor], object], alike: Alike
) -> None:
    """Check the values of one file; ``see`` gets its content, block by block."""
    for name in state.shards[shard]:
        shape = state.shape(name)
        num_rows = shape[0] if shape else 1
        step = max(1, BLOCK * num_rows // max(shape.numel(), 1))
        for start in range(0, num_rows, step):
            rows = state.rows(name, start, start + step)
            see(rows)
            infinite = rows.is_floating_point() and not all_finite(rows)
            if infinite and not alike(name, start, rows):
                raise ValueError(
                    f"{state.path} holds NaN or infinity in {name!r}. Its training diverged or the "
                    f"file is damaged: delete it and make or fetch it again."
                )


def _bytes(rows: Tensor) -> memoryview:
    return memoryview(rows.reshape(-1).view(torch.uint8).numpy())


# Of what is read before its turn: pieces that are kept of a file, and the bytes of the largest.
MOST_EARLY, MOST_BYTES = 64, 2**22


class ReadHash:
    """The sha256 of an open safetensors file, taken of what others read of it.

    Threads read blocks about in order. One that comes early is kept until its turn; what nobody
    reads, or reads far out of order, is read at the end.
    """

    def __init__(self, file: SafetensorsFile) -> None:
        self._file = file
        self._hashed = _Hashed(file.header)
        self._early: dict[int, bytes] = {}
        self._lock, self._busy = threading.Lock(), False
        # No task vector has a delta of integers, so nobody reads them: first and end byte.
        self._unread = [
            (file.offsets[name], file.offsets[name] + spec.rows * spec.row_bytes)
            for name, spec in file.specs.items()
            if not spec.dtype.is_floating_point
        ]
        self._go_on(*self._next())  # the format's own writer puts integers of 64 bits first
        file.seen = self.see

    def see(self, offset: int, content: memoryview) -> None:
        """Hash what was read if it is next; keep a copy if it is early; else do nothing."""
        with self._lock:
            if self._busy or offset > self._hashed.position:
                self._keep(offset, content)
                return
            self._busy = True
        self._go_on(offset, content)

    def finish(self) -> str:
        """Read what was not read; return the hash. Raises ValueError if the file has changed."""
        while content := self._content(self._hashed.position, self._file.stamp.num_bytes):
            self._hashed.add(self._hashed.position, content)
        self._file.check_unchanged()
        return self._hashed.hexdigest()

    def _go_on(self, offset: int, content: memoryview | bytes | None) -> None:
        while content is not None:
            self._hashed.add(offset, content)
            with self._lock:
                offset, content = self._next()
                self._busy = content is not None

    def _next(self) -> tuple[int, memoryview | bytes | None]:
        """Return what comes next, if it is there: what came early or what nobody else reads."""
        position = self._hashed.position
        for start, stop in self._unread:
            if start <= position < stop:
                return position, self._content(position, stop)
        for offset in sorted(self._early):
            if offset <= position:
                content = self._early.pop(offset)
                if offset + len(content) > position:
                    return offset, content
        return 0, None

    def _keep(self, offset: int, content: memoryview) -> None:
        if offset + len(content) <= self._hashed.position or len(content) > MOST_BYTES:
            return
        if len(self._early) == MOST_EARLY:
            furthest = max(self._early)
            if offset > furthest:
                return
            del self._early[furthest]
        self._early[offset] = bytes(content)

    def _content(self, start: int, stop: int) -> bytearray:
        content = bytearray(min(stop - start, MOST_BYTES))
        self._file.read_bytes(start, memoryview(content))
        return content


class HashedReading:
    """Hash checkpoints while they are read: the sha256 of every file, without a reading for it."""

    def __init__(self, states: Mapping[str, StateDict]) -> None:
        self._states = states
        files = [file for state in states.values() for file in state.parts.values()]
        self._files = {(file.path, file.stamp): file for file in files}
        self._hashes = {
            key: ReadHash(file)
            for key, file in self._files.items()
            if isinstance(file, SafetensorsFile)
            and key not in _checked
            and not is_hashed_ahead(file.path)
        }

    def unknown(self) -> dict[str, Hashes]:
        """Return zeros in place of the hashes, as many digits."""
        zeros = "0" * 2 * hashlib.sha256().digest_size
        return {key: dict.fromkeys(state.parts, zeros) for key, state in self._states.items()}

    def finish(self) -> dict[str, Hashes]:
        """Return the hashes of all files by the checkpoints' keys, as `check_contents` does.

        Raises ValueError for a file that changed since it was opened.
        """

        def hash_of(key: tuple[Path, Stamp]) -> str:
            if key in self._hashes:
                return self._hashes[key].finish()
            return _checked[key] if key in _checked else _hash_by_path(*key)

        _checked.update(zip(self._files, side_by_side(hash_of, self._files), strict=True))
        return {
            name: {part.path.name: _checked[part.path, part.stamp] for part in state.parts.values()}
            for name, state in self._states.items()
        }


def check_contents(
    states: Mapping[str, StateDict],
    done: Callable[[], object],
    alike: Callable[[str, str, int, Tensor], bool] = lambda key, *rows: False,
) -> dict[str, Hashes]:
    """Return the hashes of all checkpoints, by their keys, after the check of `check_finite`.

    ``alike`` gets the checkpoint's key first. Checkpoints are read side by side, one thread
    each; ``done`` is called after each. Raises ValueError that names the first checkpoint with a
    value that is not finite.
    """

    def check(name: str) -> Hashes:
        try:
            hashes = checked_hashes(states[name], partial(alike, name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        done()
        return hashes

    return dict(zip(states, side_by_side(check, states), strict=True))
