"""One safetensors file, read in pieces into ordinary memory."""

import json
import math
import os
import reprlib
import stat
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tsv_bench.files.content import Stamp

# Dtypes as safetensors names them -> as torch does.
TORCH_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}
DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, torch_name)
    for name, torch_name in TORCH_NAMES.items()
    if hasattr(torch, torch_name)  # older versions of torch lack some of the rarer ones
}


MAX_NAME = 1000  # characters of a parameter's name
MAX_REASON = 300  # characters of an error's message within one of ours


class Spec(NamedTuple):
    """A parameter's dtype and shape, known without reading it. A 0-d one counts as one row."""

    dtype: torch.dtype
    shape: torch.Size

    @property
    def rows(self) -> int:
        return self.shape[0] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class SafetensorsFile:
    """An open safetensors file; ``specs``: parameter -> dtype and shape, in the data's order.

    ``header`` is every byte before the data.
    """

    def __init__(self, path: Path) -> None:
        """Raises ValueError if the file is damaged or holds a dtype that torch does not know."""
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would be waited for
        weakref.finalize(self, os.close, self._fd)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise ValueError(f"{path} is not a safetensors file: it is no regular file.")
        self.stamp = self._stamp()  # of what is open: the path may be replaced
        try:
            with safe_open(path, framework="pt"):  # checks the header and the size
                pass
        except SafetensorError as error:
            if "unknown variant" in str(error):
                raise ValueError(
                    f"{path} holds tensors of an unknown dtype: {shown(error)}."
                ) from error
            raise ValueError(
                f"{path} is not a whole safetensors file ({shown(error)}). Delete it and make it "
                f"again."
            ) from error
        except RuntimeError as error:  # as where too many files are open, or it was removed
            if path.exists():
                raise OSError(f"{path} cannot be mapped: {shown(error)}") from error
            raise FileNotFoundError(f"{path} was removed while it was being opened.") from error
        header_bytes = int.from_bytes(os.pread(self._fd, 8, 0), "little")
        self.header = os.pread(self._fd, 8 + header_bytes, 0)
        header = json.loads(self.header[8:])
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        self.specs: dict[str, Spec] = {}
        self.offsets: dict[str, int] = {}  # parameter -> its first byte in the file
        self.seen: Callable[[int, memoryview], object] | None = None  # gets all that `read` reads
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            check_name(path, name)
            if entry["dtype"] not in DTYPES:
                raise ValueError(
                    f"{path} holds {name!r} of an unknown dtype, {entry['dtype']!r}. Known are "
                    f"{', '.join(DTYPES)}: save it as one of them."
                )
            self.specs[name] = Spec(DTYPES[entry["dtype"]], torch.Size(entry["shape"]))
            self.offsets[name] = 8 + header_bytes + entry["data_offsets"][0]

    def read(self, name: str, start: int, out: Tensor) -> None:
        """Fill ``out`` with the parameter's rows from ``start`` on.

        Raises ValueError if the file has shrunk since it was opened.
        """
        offset = self.offsets[name] + start * self.specs[name].row_bytes
        content = memoryview(out.reshape(-1).view(torch.uint8).numpy())
        self.read_bytes(offset, content)
        if self.seen is not None:
            self.seen(offset, content)

    def read_bytes(self, offset: int, out: memoryview) -> None:
        """Fill ``out`` with the file's bytes from ``offset`` on.

        Raises ValueError if the file has shrunk since it was opened.
        """
        # preadv fills the tensor's memory, maps nothing and moves no position shared by threads.
        while out:
            count = os.preadv(self._fd, [out], offset)
            if count == 0:
                raise changed(self.path)
            out, offset = out[count:], offset + count

    def check_unchanged(self) -> None:
        """Raise ValueError if the file was written to since it was opened."""
        if self._stamp() != self.stamp:
            raise changed(self.path)

    def _stamp(self) -> Stamp:
        status = os.fstat(self._fd)
        return Stamp(status.st_ino, status.st_size, status.st_mtime_ns)


def changed(path: Path) -> ValueError:
    """Return the error of a file that is another one than was opened."""
    return ValueError(
        f"{path} changed while it was being read. Start again when nothing writes to it."
    )


def check_name(path: Path, name: str) -> None:
    """Raise ValueError unless a safetensors file can have the name, and a message can show it."""
    try:
        name.encode()  # not with half a surrogate pair
        usual = len(name) <= MAX_NAME and name != "__metadata__"
    except UnicodeEncodeError:
        usual = False
    if not usual:
        raise ValueError(
            f"{path} holds a tensor named {reprlib.repr(name)}, {len(name)} characters. A name is "
            f"text of at most {MAX_NAME}, and not '__metadata__'. Rename it and save it again."
        )


def shown(error: object) -> str:
    """Return what an error that quotes a file begins with; "" if it cannot stand in a message."""
    reason = str(error).partition("\n")[0][:MAX_REASON]
    return reason if reason.isprintable() else ""
