"""One file of weights, written by torch.save or as safetensors, read in pieces.

Pages of a mapped file count as resident memory for as long as they are mapped. These readers copy
each piece into ordinary memory and keep nothing mapped for long, so that streaming through many
large files takes little more memory than one piece.
"""

import logging
import pickle
import re
import reprlib
import threading
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tsv_bench.files import stamp
from tsv_bench.state_dicts.entries.wrappers import tensors_of, weights_in
from tsv_bench.state_dicts.safetensors_file import SafetensorsFile, Spec, changed, check_name, shown

log = logging.getLogger(__name__)
EXPANDED_BYTES = 2**28  # a tensor with strides of 0 may take so much; else no more than its file
MAPPED_BYTES = 32 * 2**20  # how much is read of a torch file before it is mapped afresh
ACCEPTED = (
    "Accepted are a safetensors file, a state dict saved with torch.save, and a folder that holds "
    "either of them, whole or in shards with their index"
)


class TorchFile:
    """A state dict that torch.save wrote; ``specs``: parameter -> dtype and shape.

    They are in the order of the data.
    """

    metadata: dict[str, str] = {}  # as of a `SafetensorsFile`
    header = None

    def __init__(self, path: Path, *, mapped: bool) -> None:
        """Load the file: memory-mapped, or whole as the format before torch 1.6 requires.

        Raises ValueError if it is damaged, needs code to be run, or holds no state dict of
        ordinary tensors.
        """
        self.path = path
        self._mapped = mapped
        self.stamp = stamp(path)
        self._lock = threading.Lock()
        self._bytes_read = 0
        content = _load(path, mapped)
        if stamp(path) != self.stamp:
            raise changed(path)
        if not isinstance(content, dict):
            raise ValueError(
                f"{path} is not a checkpoint: it holds a {type(content).__name__}, not tensors by "
                f"name. {ACCEPTED}."
            )
        self._tensors = tensors_of(weights_in(path, content))
        for name, tensor in self._tensors.items():
            _check_ordinary(path, name, tensor, self.stamp.num_bytes)
        names = list(self._tensors)
        if mapped:  # torch.save's order of storages is not always that of the names
            names.sort(key=lambda name: self._tensors[name].data_ptr())
        self.specs = {n: Spec(self._tensors[n].dtype, self._tensors[n].shape) for n in names}
        ignored = [key for key in weights_in(path, content) if key not in self._tensors]
        if ignored:
            first = reprlib.repr(ignored[0])  # a key may be long, or deep
            log.info(f"{path}: {len(ignored)} entries are no weights, first {first}")

    def read(self, name: str, start: int, out: Tensor) -> None:
        """Fill ``out`` with the parameter's rows from ``start`` on.

        Raises ValueError if the file has changed since it was opened.
        """
        row_bytes = self.specs[name].row_bytes
        step = max(1, MAPPED_BYTES // row_bytes)
        for first in range(0, len(out), step):
            piece = out[first : first + step]
            tensor = self._current(len(piece) * row_bytes)[name].detach()
            tensor = tensor if tensor.ndim else tensor.reshape(1)
            piece.copy_(tensor[start + first : start + first + len(piece)])

    def check_unchanged(self) -> None:
        """Raise ValueError if the file has changed since it was opened, unless memory holds it."""
        if self._mapped and stamp(self.path) != self.stamp:
            raise changed(self.path)

    def _current(self, num_bytes: int) -> dict[str, Tensor]:
        """Return the tensors, mapped afresh if ``num_bytes`` more would exceed `MAPPED_BYTES`."""
        if not self._mapped:
            return self._tensors
        with self._lock:
            # Reading a mapped file that was cut kills the process; mapping one that was replaced
            # mixes two checkpoints.
            self.check_unchanged()
            if self._bytes_read and self._bytes_read + num_bytes > MAPPED_BYTES:
                self._tensors = tensors_of(weights_in(self.path, _load(self.path, mapped=True)))
                self._bytes_read = 0
            self._bytes_read += num_bytes
            return self._tensors


def open_file(path: Path) -> SafetensorsFile | TorchFile:
    """Open a file of weights; its format is recognized by its content.

    Raises FileNotFoundError if there is no file, ValueError if it is damaged or no checkpoint.
    """
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}. {ACCEPTED}.")
    if not path.is_file():
        raise ValueError(f"{path} is not a checkpoint: it is no regular file. {ACCEPTED}.")
    with path.open("rb") as file:
        start = file.read(64)
    # A safetensors file begins with its header's length in eight bytes, of which the upper four
    # are never used, and a brace. Tested first: a length may begin like the other formats.
    if start[4:9] == b"\0\0\0\0{":
        return SafetensorsFile(path)
    if start.startswith((b"PK", b"\x80")) and path.suffix == ".safetensors":
        raise ValueError(  # other loaders, torch.load too, go by the name
            f"{path} is no safetensors file, it begins like one of torch.save. Rename it to "
            f"{path.with_suffix('.pt').name}."
        )
    if start.startswith(b"PK"):
        _check_zip(path)
        return TorchFile(path, mapped=True)
    if start.startswith(b"\x80"):
        log.warning(
            f"{path} is in torch's old format and is held in memory whole. Save it again with "
            f"today's torch.save, or as safetensors, to have it read piece by piece."
        )
        return TorchFile(path, mapped=False)
    if path.suffix == ".safetensors" and not start.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path} is not a whole safetensors file (no header at its start). Delete it and make "
            f"it again."
        )
    raise ValueError(f"{path} is not a checkpoint: {_described(start)}. {ACCEPTED}.")


def _described(start: bytes) -> str:
    known = {
        b"GGUF": "it is a GGUF file, whose weights are packed",
        b"version https://git-lfs": "it is a Git LFS pointer, fetch the file with `git lfs pull`",
        b"\x89HDF": "it is an HDF5 file",
    }
    if not start:
        return "it is empty"
    found = next((text for magic, text in known.items() if start.startswith(magic)), None)
    return found or f"it begins with {start[:12]!r}"


def _check_ordinary(path: Path, name: str, tensor: Tensor, num_bytes: int) -> None:
    """Raise ValueError unless a tensor of a file of ``num_bytes`` can be read and written."""
    check_name(path, name)
    kinds = {
        str(tensor.layout).removeprefix("torch."): tensor.layout != torch.strided,
        "quantized": tensor.is_quantized,
        tensor.device.type: tensor.device.type != "cpu",  # "meta": saved without its data
    }
    odd = [kind for kind, present in kinds.items() if present]
    if odd:
        raise ValueError(
            f"{path} holds {name!r} as a {odd[0]} tensor; only ordinary (dense) ones are read. "
            f"Make it dense and save the state dict again."
        )
    if tensor.nbytes > max(num_bytes, EXPANDED_BYTES):
        raise ValueError(
            f"{path} holds {name!r} of shape {tuple(tensor.shape)}, which would take "
            f"{tensor.nbytes / 1e6:,.1f} MB; its file has {num_bytes / 1e6:,.1f} MB. Save "
            f"the state dict again with this tensor made .contiguous()."
        )


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as file:
            infos = file.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a whole torch file ({error}). Make it again.") from error
    entries = {info.filename.rpartition("/")[2] for info in infos}
    if "data.pkl" not in entries:
        raise ValueError(
            f"{path} is not a checkpoint: it is a zip file that torch.save did not write. "
            f"{ACCEPTED}."
        )
    if "constants.pkl" in entries:
        raise ValueError(
            f"{path} is a TorchScript archive: it needs code to be run, which was not executed. "
            f"Save its weights, torch.save(torch.jit.load(...).state_dict(), ...)."
        )
    # A mapped file is read as it lies there.
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise ValueError(
            f"{path} was compressed after torch.save had written it. Load it with torch.load and "
            f"save it again."
        )


def _load(path: Path, mapped: bool) -> Any:
    """Load a torch file without running code.

    Raises ValueError if it is damaged or needs code to be run.
    """
    try:
        return torch.load(path, weights_only=True, mmap=mapped, map_location="cpu")
    except OSError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise ValueError(
                f"{path} asks for more memory than there is. If it is not damaged, it is in "
                f"torch's old format: save it again with today's torch.save, or as safetensors, "
                f"where there is enough."
            ) from error
        needed = re.search(r"GLOBAL ([\w.]{1,200})", str(error))
        if isinstance(error, pickle.UnpicklingError) and needed:
            raise ValueError(
                f"{path} needs code to be run, {needed[1]}, which was not executed. Where that "
                f"code is and the file is trusted, load it and save only the weights: "
                f"torch.save(model.state_dict(), ...) or safetensors."
            ) from error
        reason = shown(str(error).rpartition("WeightsUnpickler error:")[2].strip())
        raise ValueError(
            f"{path} is not a whole torch file ({reason or type(error).__name__}). Make it again "
            f"with torch.save(model.state_dict(), ...) or as safetensors."
        ) from error
