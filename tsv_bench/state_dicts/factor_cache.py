"""Singular triplets on disk: no layer is decomposed twice for the same rank or a lower one."""

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tsv_bench.files import replace_atomically
from tsv_bench.state_dicts.safetensors_file import SafetensorsFile
from tsv_bench.task_vectors.lazy import Triplets

log = logging.getLogger(__name__)

# Part of every entry's name: raise it when the decomposition's results change.
VERSION = 1


class FactorCache:
    """Leading singular triplets by checkpoint pair, layer and kind, in a folder of bounded size.

    Entries are written atomically, so processes may share the folder. A damaged entry is deleted
    with a warning. If the folder cannot be written to, a warning says so and nothing is kept.
    """

    def __init__(self, folder: Path, max_bytes: int, ahead: float | int = 0) -> None:
        """``ahead``: the share of a layer's singular triplets that are computed at least.

        More than a method asks for, so that a later one at a higher rank finds its own.
        """
        self.folder, self.max_bytes = Path(folder).expanduser(), max_bytes
        self.ahead = ahead
        self._checked: set[tuple[Path, int]] = set()  # path and inode of entries found whole
        self._written = 0  # bytes since `_evict` was last called
        self._usable = True

    def recall(
        self, pair: str, name: str, kind: str, rank: int, shape: tuple[int, int, int]
    ) -> Triplets | None:
        """Return u [pieces, m, k], s [pieces, k], vh [pieces, k, n] with k = ``rank``.

        None if the cache has no triplets of this rank or a higher one. ``pair`` identifies the two
        checkpoints by their content. ``shape`` is that of the layer's matrices, (pieces, m, n).
        """
        path = self._path(pair, name, kind)
        try:
            file = SafetensorsFile(path)
            _check_owner(file, {"layer": name, "kind": kind, "pair": pair}, shape)
            self._check(path, file)
            if _rank(file) < rank:
                return None
            with suppress(OSError):  # the entry may be another user's
                os.utime(path)  # eviction goes by the time of the last use
            pieces = range(len(file.specs) // 3)
            parts = [[_rows(file, f"{i}.{key}", rank) for i in pieces] for key in "usv"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, LookupError, OSError, RecursionError) as error:
            log.warning(
                f"the cached factors of {name!r} are damaged, computing them again: {error}"
            )
            with suppress(OSError):
                path.unlink()
            return None
        u, s, vh = (torch.stack(part) for part in parts)
        return u.mT, s, vh

    def keep(self, pair: str, name: str, kind: str, triplets: Triplets) -> None:
        """Write the triplets unless the cache has those of this rank or a higher one."""
        if not self._usable:
            return
        u, s, vh = (part.detach().cpu() for part in triplets)
        path = self._path(pair, name, kind)
        # u is written transposed, so that the leading triplets are rows and can be read alone.
        tensors = {}
        for i in range(len(s)):
            parts = {"u": u[i].mT, "s": s[i], "v": vh[i]}
            tensors |= {f"{i}.{key}": part.contiguous() for key, part in parts.items()}
        metadata = {
            "layer": name,
            "kind": kind,
            "pair": pair,
            "checksums": json.dumps({key: _checksum(part) for key, part in tensors.items()}),
        }
        try:
            if self._rank_of(path) < s.shape[1]:
                # Checked when it is read, so it need not wait for the disk.
                replace_atomically(
                    path, lambda place: save_file(tensors, place, metadata), durable=False
                )
                self._written += path.stat().st_size
                if self._written > self.max_bytes / 20:
                    self._evict()
                self._checked.add((path, path.stat().st_ino))
        except FileNotFoundError:
            pass  # another process has evicted the entry
        except (OSError, SafetensorError) as error:  # a full disk raises the latter
            self._usable = False
            log.warning(f"going on without a factor cache: cannot write to {self.folder} ({error})")

    def _path(self, pair: str, name: str, kind: str) -> Path:
        layer = hashlib.sha256(f"{VERSION} {kind} {name}".encode()).hexdigest()[:24]
        return self.folder / pair / f"{layer}.safetensors"

    def _check(self, path: Path, file: SafetensorsFile) -> None:
        key = (path, file.stamp.inode)
        if key in self._checked:
            return
        if any(spec.dtype not in (torch.float32, torch.float64) for spec in file.specs.values()):
            raise ValueError(f"{path} holds something else than float32 and float64.")
        checksums = {name: _checksum(_rows(file, name)) for name in file.specs}
        if checksums != json.loads(file.metadata["checksums"]):
            raise ValueError(f"the checksums of {path} are not those that it had.")
        self._checked.add(key)

    def _rank_of(self, path: Path) -> int:
        try:
            return _rank(SafetensorsFile(path))
        except (ValueError, LookupError, OSError):
            return 0

    def _evict(self) -> None:
        """Delete the entries that were used longest ago until the folder is within its bound."""
        self._written = 0
        entries = []
        for path in self.folder.glob("*/*.safetensors"):
            try:
                stat = path.stat()
                entries.append((stat.st_mtime, stat.st_size, path))
            except FileNotFoundError:
                pass
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def _rank(file: SafetensorsFile) -> int:
    return file.specs["0.s"].shape[0]


def _check_owner(
    file: SafetensorsFile, about: Mapping[str, str], shape: tuple[int, int, int]
) -> None:
    """Raise ValueError if the file holds factors of another layer, or of another ``shape``.

    ``about``: what its metadata must say. ``shape``: (pieces, m, n).
    """
    for key, value in about.items():
        # Versions before this one wrote the layer only.
        if (found := file.metadata.get(key, value)) != value:
            raise ValueError(f"{file.path} is of the {key} {found!r}, not {value!r}.")
    (pieces, m, n), k = shape, _rank(file)
    found = {name: tuple(spec.shape) for name, spec in file.specs.items()}
    for rows, columns in ((m, n), (0, 0)):  # the latter of singular values without vectors
        of_piece = {"u": (k, rows), "s": (k,), "v": (k, columns)}
        if found == {f"{i}.{key}": size for i in range(pieces) for key, size in of_piece.items()}:
            return
    raise ValueError(f"{file.path} is of a layer whose matrices are not {shape}.")


def _rows(file: SafetensorsFile, name: str, count: int | None = None) -> Tensor:
    spec = file.specs[name]
    shape = spec.shape if count is None else (count, *spec.shape[1:])
    out = torch.empty(shape, dtype=spec.dtype)
    if out.numel():
        file.read(name, 0, out)
    return out


def _checksum(tensor: Tensor) -> int:
    return zlib.crc32(tensor.numpy())
