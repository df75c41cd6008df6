"""Checkpoints of every common format, in one file or in shards, read one tensor at a time."""

import json
import reprlib
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tsv_bench.linalg.precision import at_least_float32
from tsv_bench.state_dicts.entries.quantized import same_values
from tsv_bench.state_dicts.other_files import sub_folders
from tsv_bench.state_dicts.safetensors_file import SafetensorsFile
from tsv_bench.state_dicts.torch_file import ACCEPTED, TorchFile, open_file
from tsv_bench.task_vectors.lazy import LazyMapping

# Kind of weights -> its usual file name and its suffixes. Of a folder with both kinds the first
# is taken, as by Hugging Face's loaders.
KINDS = {
    "safetensors": ("model.safetensors", (".safetensors",)),
    "bin": ("pytorch_model.bin", (".bin", ".pt", ".pth")),
}
# A LoRA adapter's weights, beside its adapter_config.json; training leaves other files there.
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
MAX_INDEX = 100 * 2**20  # bytes: as many as a safetensors header may have
MAX_FILE_NAME = 255  # characters
WEIGHTS = tuple(suffix for _, suffixes in KINDS.values() for suffix in suffixes)
SUFFIXES = (
    *WEIGHTS,
    ".ckpt",
    ".gguf",
    ".h5",
    ".msgpack",
    ".onnx",
)


class StateDict(LazyMapping):
    """A checkpoint whose tensors are read on access; threads may share one.

    A tensor that is read belongs to the caller: contiguous, in ordinary memory, no view of a file.
    ``parts``: file name -> the open file. ``shards``: file name -> its parameters, in the file's
    order. ``headers``: file name -> the
    bytes before the data, or None if the file holds more than header and data. ``stamps``: file
    name -> what told the file from others when it was opened. ``other_files``: the files of a
    folder that are neither weights nor their index, its `sub_folders`, and links; `other_files`
    knows which are its own.
    """

    weights_hash: str | None = None  # kept here by `low_rank.weights_hash`

    def __init__(
        self,
        path: Path,
        parts: Sequence[SafetensorsFile | TorchFile],
        *,
        weight_map: Mapping[str, str] | None = None,
        index_name: str | None = None,
        other_files: Sequence[Path] = (),
    ) -> None:
        """``weight_map``: parameter -> file name, as the index file ``index_name`` says.

        Raises ValueError if there is no tensor.
        """
        self.path = path
        self.files = sorted(part.path for part in parts)
        self.index_name = index_name
        self.other_files = list(other_files)
        self.metadata = {} if index_name else dict(parts[0].metadata)
        self.shards: dict[str, list[str]] = {}
        self.headers = {part.path.name: part.header for part in parts}
        self.stamps = {part.path.name: part.stamp for part in parts}
        self.parts = {part.path.name: part for part in parts}
        self._part: dict[str, SafetensorsFile | TorchFile] = {}
        for part in parts:
            shard = part.path.name
            names = [n for n in part.specs if weight_map is None or weight_map.get(n) == shard]
            self.shards[shard] = names
            self._part.update(dict.fromkeys(names, part))
        ours = any(key.startswith("tsv_bench") for key in self.metadata)
        if not self._part and not ours:  # a compressed task that changed nothing has no tensor
            raise ValueError(f"{path} is not a checkpoint: it holds no tensor. {ACCEPTED}.")

    @property
    def stored(self) -> "StateDict":
        """The checkpoint as its files have it: itself, unless it is a view of one."""
        return self

    @property
    def names(self) -> Collection[str]:
        return self._part.keys()

    def seen_as(self, stored: str) -> str | None:
        """Return the name under which an entry of the files is seen here, if any."""
        return stored if stored in self._part else None

    def shape(self, name: str) -> torch.Size:
        return self._part[name].specs[name].shape

    def dtype(self, name: str) -> torch.dtype:
        return self._part[name].specs[name].dtype

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read ``self[name][start:stop]`` and no other rows. A 0-d tensor is one row, itself.

        Raises ValueError if the file has changed since it was opened.
        """
        part = self._part[name]
        spec = part.specs[name]
        start, stop, _ = slice(start, stop).indices(spec.rows)
        out = torch.empty((max(stop - start, 0), *spec.shape[1:]), dtype=spec.dtype)
        if out.numel():
            part.read(name, start, out)
            part.check_unchanged()
        return out if spec.shape else out.reshape(())


def open_state_dict(path: Path | str) -> StateDict:
    """Open a checkpoint: a safetensors file, one of torch.save, or a folder that holds either.

    The format is recognized by the content. Code in a pickle is never run. Raises
    FileNotFoundError if there is no such file, ValueError if it is damaged or no checkpoint.
    """
    path = Path(path)
    if not path.is_dir():
        return StateDict(path, [open_file(path)])
    found = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    files = [p for p in found if p.is_file()]
    others = [
        p
        for p in found
        if (p.is_file() or p.is_symlink() and not p.is_dir())  # a link that is broken, too
        and not p.name.endswith((*SUFFIXES, ".index.json"))
    ]
    others += sub_folders(path)
    if adapter := _adapter_file(path, files):
        return StateDict(path, [open_file(adapter)], other_files=others)
    for kind, (usual, suffixes) in KINDS.items():
        indices = [p for p in files if p.name.endswith(f".{kind}.index.json")]
        if indices:
            index = _only(indices, f"{usual}.index.json")
            state = _open_shards(index, others)
            if (whole := path / usual) in files and usual not in state.shards:
                _check_same(state, StateDict(path, [open_file(whole)]), whole)
            return state
        weights = [p for p in files if p.suffix in suffixes]
        if weights:
            return StateDict(path, [open_file(_only(weights, usual))], other_files=others)
    raise ValueError(
        f"{path} is not a checkpoint: no file in it is named like weights "
        f"({', '.join(WEIGHTS)}). {ACCEPTED}."
    )


def _adapter_file(folder: Path, files: list[Path]) -> Path | None:
    """Return the weights of an adapter that a folder holds, or None if it holds none.

    Raises ValueError if the folder holds a whole model as well.
    """
    by_name = {path.name: path for path in files}
    found = next((by_name[name] for name in ADAPTER_FILES if name in by_name), None)
    whole = [usual for usual, _ in KINDS.values() if usual in by_name]
    whole += [name for name in by_name if name.endswith(".index.json")]
    if found and whole:
        raise ValueError(
            f"{folder} holds an adapter, {found.name}, and a whole model, {whole[0]}. Move one of "
            f"them to a folder of its own."
        )
    return found


def _only(found: list[Path], usual: str) -> Path:
    """Return the only file, or else the one with the usual name. Raises ValueError if neither."""
    for path in found:
        if len(found) == 1 or path.name == usual:
            return path
    raise ValueError(
        f"{found[0].parent} holds {len(found)} files to choose from and no {usual}: "
        f"{', '.join(path.name for path in found)}. Name the one that is meant. Shards of one "
        f"checkpoint need their index file beside them."
    )


def _check_same(shards: StateDict, single: StateDict, path: Path) -> None:
    """Raise ValueError unless the single file at ``path`` holds what the shards beside it hold.

    Hugging Face's loaders read the single one. Left from an earlier save, it is another model.
    """
    odd = set(shards) ^ set(single) or {
        name for name in shards if not same_values(shards, name, single, name)
    }
    if odd:
        raise ValueError(
            f"{path} and {shards.index_name} beside it are two checkpoints: {len(odd)} entries "
            f"differ, first {min(odd)!r}. Other loaders read the single file. Name the file that "
            f"is meant, or remove the other: the single one, or the index and its shards."
        )


def _open_shards(index: Path, others: list[Path]) -> StateDict:
    """Open the shards that ``index`` lists.

    Raises FileNotFoundError if a shard is missing, ValueError if the shards hold other parameters
    than the index says.
    """
    try:
        if index.stat().st_size > MAX_INDEX:
            raise ValueError("too large")
        weight_map: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
        shards = sorted(set(weight_map.values()))
        if not all(isinstance(shard, str) for shard in shards):
            raise TypeError("not names")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f'{index} is not a whole index: it has no "weight_map" from parameters to files. '
            f"Fetch or save the checkpoint again."
        ) from error
    parts = []
    for shard in shards:
        if Path(shard).name != shard or not shard.isprintable() or len(shard) > MAX_FILE_NAME:
            named = reprlib.repr(shard)
            raise ValueError(f"{index} names {named}, which is no file name in its folder.")
        if not (index.parent / shard).exists():
            raise FileNotFoundError(
                f"no checkpoint at {index.parent / shard}, which {index.name} names. Fetch or "
                f"save the checkpoint again."
            )
        parts.append(open_file(index.parent / shard))
    held = {part.path.name: part.specs for part in parts}
    lacking = [name for name, shard in weight_map.items() if name not in held[shard]]
    if lacking:
        raise ValueError(
            f"{index} names {reprlib.repr(lacking[0])} in {weight_map[lacking[0]]}, which does "
            f"not hold it ({len(lacking)} such). Fetch or save the checkpoint again."
        )
    unlisted = [(n, part.path.name) for part in parts for n in part.specs if n not in weight_map]
    if unlisted:
        raise ValueError(
            f"{unlisted[0][1]} holds {unlisted[0][0]!r}, which {index} does not name "
            f"({len(unlisted)} such). Fetch or save the checkpoint again."
        )
    return StateDict(
        index.parent, parts, weight_map=weight_map, index_name=index.name, other_files=others
    )


class CachedReads(StateDict):
    """A checkpoint that keeps the rows that each thread read last.

    Every task and the writer ask for the same pretrained rows, one after the other.
    """

    def __init__(self, state: StateDict) -> None:
        self.__dict__ = dict(state.__dict__)
        self._state, self._last = state, threading.local()

    @property
    def stored(self) -> StateDict:
        stored = self._state.stored
        return self if stored is self._state else stored

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read rows as `StateDict.rows` does. The tensor is shared: do not change it."""
        last, key = self._last, (name, start, stop)
        if getattr(last, "key", None) != key:
            last.key = last.rows = last.wide = None  # their memory is free for the next ones
            last.rows = self._state.rows(name, start, stop)
            last.key = key
        return last.rows

    def wide_rows(self, name: str, start: int, stop: int, device: torch.device) -> Tensor:
        self.rows(name, start, stop)
        last = self._last
        if last.wide is None or last.wide.device != device:
            last.wide = at_least_float32(last.rows.to(device))
        return last.wide
