"""Safetensors checkpoints, one file or shards, written piece by piece and put in place whole."""

import json
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from tsv_bench.files.atomic import (
    NEW,
    make_folder,
    rename,
    rename_aside,
    replace_files,
    sweep,
    sync,
    sync_tree,
    temporary_beside,
)
from tsv_bench.state_dicts.other_files import copy, size_of
from tsv_bench.state_dicts.overflow import fitted
from tsv_bench.state_dicts.safetensors_file import DTYPES, SafetensorsFile, Spec
from tsv_bench.state_dicts.state_dict import WEIGHTS

# Keys in a file's metadata: how the file was made, and in a folder the names of all its files.
MADE_BY, BESIDE = "tsv_bench", "tsv_bench.files"
NAMES = {dtype: name for name, dtype in DTYPES.items()}  # as safetensors has them


@dataclass(frozen=True)
class Shards:
    """The files of an output: the parameters in each, with dtype and shape, and what is beside."""

    files: dict[str, dict[str, tuple[torch.dtype, tuple[int, ...]]]]  # file name -> parameters
    index_name: str | None = None
    other_files: tuple[Path, ...] = ()  # to be copied
    texts: tuple[str, ...] = ()  # files that `StateDictWriter.write_text` writes
    folder: bool = False  # False: a single file and nothing beside it

    @property
    def names(self) -> list[str]:
        """The names of all files, in one folder."""
        index = [self.index_name] if self.index_name else []
        return [*self.files, *index, *(path.name for path in self.other_files), *self.texts]

    @property
    def weight_bytes(self) -> int:
        specs = (spec for params in self.files.values() for spec in params.values())
        return sum(_num_bytes(dtype, shape) for dtype, shape in specs)

    @property
    def num_layers(self) -> int:
        return sum(map(len, self.files.values()))

    def num_bytes(self) -> int:
        """Return an upper bound of the bytes that all files take."""
        # Metadata, which in a folder names all files, and the frame of header and index.
        listed = (2**16 + len(json.dumps(self.names))) * (1 + len(self.files) + len(self.texts))
        for file_name, params in self.files.items():  # a line in the header and one in the index
            listed += sum(2 * len(json.dumps(name)) + len(file_name) + 400 for name in params)
        return self.weight_bytes + listed + sum(map(size_of, self.other_files))


class StateDictWriter:
    """A context manager that writes ``output`` and puts it in place at its end.

    Until then ``output`` stays as it was; after an exception it stays so. Then it is on the disk,
    and a loss of power leaves it whole.
    """

    def __init__(
        self,
        output: Path,
        shards: Shards,
        metadata: Mapping[str, str],
        *,
        overwrite: bool = False,
    ) -> None:
        """Check the shards; nothing is written yet.

        ``overwrite``: replace what an earlier merge wrote there. What anybody else has added to
        its folder stays.

        Raises ValueError if there is a folder where a file is to be written, or a file where a
        folder is, or for a dtype that safetensors does not have.
        """
        if shards.folder and output.exists() and not output.is_dir():
            raise ValueError(f"{output} is a file; a folder is to be written there. Name another.")
        if not shards.folder and output.is_dir():
            raise ValueError(f"{output} is a folder; a file is to be written there. Name another.")
        if not shards.folder:
            assert len(shards.files) == 1 and not shards.index_name and not shards.other_files
        assert all(Path(name).name == name for name in shards.files)
        assert len(set(shards.names)) == len(shards.names), "two files of one name"
        # Renaming a link would not move the folder behind it: replace the folder itself.
        self._output = output.resolve() if shards.folder else output
        self._shards = shards
        self._overwrite = overwrite
        beside = {BESIDE: json.dumps(shards.names)} if shards.folder else {}
        self._metadata = {**metadata, **beside, "format": "pt"}
        self._specs: dict[str, Spec] = {}
        self._written: dict[str, list[tuple[int, int]]] = {}  # rows, from and to
        for params in shards.files.values():
            for name, (dtype, shape) in params.items():
                assert name not in self._specs, f"{name!r} is in two files"
                if dtype not in NAMES:
                    raise ValueError(
                        f"safetensors has no dtype for {name!r}, which is {dtype}. Convert it "
                        f"first; there are {', '.join(DTYPES)}."
                    )
                self._specs[name] = Spec(dtype, torch.Size(shape))
                self._written[name] = []
        self._place: dict[str, tuple[int, int]] = {}  # file descriptor and offset
        self._headers: dict[int, tuple[list[str], int]] = {}  # of each file: parameters and length
        self._open_files = ExitStack()

    def __enter__(self) -> Self:
        make_folder(self._output.parent)
        sweep(self._output.parent)
        with ExitStack() as opened:
            self._temporary = opened.enter_context(temporary_beside(self._output))
            self._new = self._temporary / NEW
            opened.callback(self._open_files.close)
            if self._shards.folder:
                self._new.mkdir()
                for path in self._shards.other_files:
                    copy(path, self._new / path.name)
                self._write_index()
            for file_name, params in self._shards.files.items():
                inside = self._new / file_name
                self._begin(inside if self._shards.folder else self._new, list(params))
            self._opened = opened.pop_all()
        return self

    def write(self, name: str, start_row: int, tensor: Tensor, fits: bool = False) -> None:
        """Write rows from ``start_row`` on, cast to the parameter's dtype; 0-d is row 0.

        ``fits``: it is what `fitted` made. Raises ValueError if a value does not fit that dtype.
        """
        spec = self._specs[name]
        rows = tensor.detach() if spec.shape else tensor.detach().reshape(1)
        assert rows.shape[1:] == spec.shape[1:], f"{name!r}: {tensor.shape} into {spec.shape}"
        stop_row = start_row + len(rows)
        again = any(start_row < b and a < stop_row for a, b in self._written[name])
        if again or start_row < 0 or stop_row > spec.rows:
            raise AssertionError(f"{name!r}: rows {start_row} to {stop_row} are not to be written")
        self._written[name].append((start_row, stop_row))
        if rows.numel():
            file, offset = self._place[name]
            written = rows if fits else fitted(name, rows, spec.dtype)
            assert written.dtype == spec.dtype
            data = written.contiguous().reshape(-1).view(torch.uint8).numpy()
            _write_at(file, memoryview(data), offset + start_row * spec.row_bytes)

    def write_text(self, name: str, text: str) -> None:
        """Write one of the shards' texts."""
        (self._new / name).write_text(text, encoding="utf-8", newline="")

    def restate(self, metadata: Mapping[str, str]) -> None:
        """Replace the metadata by others that take as many bytes."""
        self._metadata |= metadata
        for file, (names, num_bytes) in self._headers.items():
            header, _ = _header({name: self._specs[name] for name in names}, self._metadata)
            assert len(header) == num_bytes, "other metadata of another length"
            _write_at(file, memoryview(header), 0)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._opened:
            if error is None:
                self._check_complete()
                self._open_files.close()
                sync_tree(self._new)
                self._put_in_place()

    def _begin(self, path: Path, names: list[str]) -> None:
        """Create a file, write its header and note where each of its parameters goes."""
        header, data_start = _header({name: self._specs[name] for name in names}, self._metadata)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._open_files.callback(os.close, file)
        for name in names:
            self._place[name] = file, data_start[name]
        self._headers[file] = names, len(header)
        _write_at(file, memoryview(header), 0)

    def _write_index(self) -> None:
        if self._shards.index_name is None:
            return
        weight_map = {name: file for file, names in self._shards.files.items() for name in names}
        total = {"total_size": self._shards.weight_bytes}
        text = json.dumps({"metadata": total, "weight_map": weight_map}, indent=2)
        (self._new / self._shards.index_name).write_text(text + "\n", encoding="utf-8")

    def _check_complete(self) -> None:
        for name, spec in self._specs.items():
            rows = sum(stop - start for start, stop in self._written[name])  # without overlaps
            if rows != spec.rows and math.prod(spec.shape):
                raise AssertionError(f"{name!r}: only {rows} of {spec.rows} rows were written")

    def _put_in_place(self) -> None:
        """Rename what was written to ``output``.

        If something that is not to be replaced has appeared there, what was written gets another
        name, and FileExistsError says which.
        """
        if not self._overwrite or not written_by_merge(self._output):
            try:
                return rename(self._new, self._output)
            except FileExistsError:
                raise rename_aside(self._new, self._output) from None
        if not self._shards.folder:
            os.replace(self._new, self._output)
            sync(self._output.parent)
        else:
            replace_files(self._temporary, self._output, owned(self._output, self._shards))


def written_by_merge(output: Path) -> bool:
    """Return whether a merge wrote all weights at ``output``, a file or a folder."""
    try:
        files = weight_files(output) if output.is_dir() else [output]
        keys = [SafetensorsFile(file).metadata for file in files]
    except (ValueError, OSError):
        return False
    # Files beside the main ones have keys of their own: tsv_bench.<what>.
    return bool(keys) and all(any(k.split(".")[0] == MADE_BY for k in found) for found in keys)


def weight_files(folder: Path) -> list[Path]:
    """Return the files in ``folder`` that hold weights by their names."""
    return sorted(path for path in folder.iterdir() if path.suffix in WEIGHTS)


def owned(folder: Path, shards: Shards) -> set[str]:
    """Return the names of the files that a merge wrote into ``folder``, as their metadata has them.

    Versions that named only the weights copied the other files of ``shards`` too. Raises ValueError
    if the metadata are damaged.
    """
    names: set[str] = set()
    for file in weight_files(folder):
        beside = SafetensorsFile(file).metadata.get(BESIDE)
        try:
            listed = [str(name) for name in json.loads(beside)] if beside else shards.names
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{file} has damaged metadata, which do not say what a merge has written beside "
                f"it. Name another output, or remove this one yourself."
            ) from error
        names |= {file.name, *listed}
    return {name for name in names if Path(name).name == name}


def _num_bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * dtype.itemsize


def _header(specs: Mapping[str, Spec], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """Return a safetensors header and the byte at which each parameter starts.

    The format allows no holes. If the parameters' own order would leave one of them unaligned to
    its dtype, they are sorted by the width of their dtypes, the widest first.
    """
    offsets = _offsets(specs)
    if any(offsets[name] % spec.dtype.itemsize for name, spec in specs.items()):
        specs = dict(sorted(specs.items(), key=lambda item: -item[1].dtype.itemsize))
        offsets = _offsets(specs)
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    for name, (dtype, shape) in specs.items():
        begin, end = offsets[name], offsets[name] + _num_bytes(dtype, shape)
        entries[name] = {"dtype": NAMES[dtype], "shape": [*shape], "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return header, {name: len(header) + offset for name, offset in offsets.items()}


def _offsets(specs: Mapping[str, Spec]) -> dict[str, int]:
    offsets, end = {}, 0
    for name, (dtype, shape) in specs.items():
        offsets[name] = end
        end += _num_bytes(dtype, shape)
    return offsets


def _write_at(file: int, data: memoryview, offset: int) -> None:
    while data:  # one call writes at most 2 GB
        count = os.pwrite(file, data, offset)
        data, offset = data[count:], offset + count
