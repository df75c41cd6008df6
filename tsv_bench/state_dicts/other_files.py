"""The files beside a checkpoint's weights that go with it into an output."""

import filecmp
import json
import logging
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

log = logging.getLogger(__name__)
MODULES = "modules.json"  # of sentence-transformers: parts, each in a folder at its "path"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def sub_folders(folder: Path) -> list[Path]:
    """Return the folders that a checkpoint's own `MODULES` names as parts of it."""
    try:
        listed = json.loads((folder / MODULES).read_bytes())
        paths = [str(part["path"]) for part in listed]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []
    inside = sorted({path.split("/")[0] for path in paths if path})
    found = [folder / name for name in inside if name not in (".", "..")]
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def check_sub_folders(folder: Path, beside: Iterable[Path], finetuned: Mapping[str, Path]) -> None:
    """Raise ValueError if a task has other weights in a sub-folder: they would not be merged."""
    for path in (p for part in beside if part.is_dir() for p in sorted(part.rglob("*"))):
        if path.suffix not in WEIGHTS:
            continue
        name = path.relative_to(folder)
        for task, other in finetuned.items():
            own = other / name
            if other.is_dir() and own.is_file() and not filecmp.cmp(path, own, shallow=False):
                raise ValueError(
                    f"{task}: its {name} differs from the pretrained one, and weights in a folder "
                    f"within a checkpoint are not merged with it. Merge those folders too, as in "
                    f"pretrained={path.parent} finetuned='{{{task}: {own.parent}, ...}}', and "
                    f"without {MODULES} here."
                )


def copy(path: Path, target: Path) -> None:
    """Copy a file, or a folder with those of its files that are its own."""
    if not path.is_dir():
        shutil.copyfile(path, target)
        return
    target.mkdir()
    for inner in own_files(path, sorted(path.iterdir())):
        copy(inner, target / inner.name)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def own_files(folder: Path, files: Iterable[Path]) -> list[Path]:
    """Return those of the ``files`` in ``folder`` whose content lies there, or in the hub's cache.

    A link to another place is left out with a warning: an output is passed on, and what its owner
    keeps elsewhere is not meant to be.
    """
    own = []
    for path in files:
        if path.is_symlink() and not _leads_home(path, folder.resolve()):
            log.warning(
                f"{path} is a link that leads to no file in its folder: it is not copied into the "
                f"output. If it belongs there, copy it yourself."
            )
        else:
            own.append(path)
    return own


def _leads_home(link: Path, folder: Path) -> bool:
    """Return whether a link ends in ``folder``, or in the content of a repository's snapshot.

    huggingface_hub has it so: <repository>/snapshots/<commit>/<name> -> ../../blobs/<digest>.
    """
    if not link.is_file():
        return False
    content = link.resolve()
    if content.is_relative_to(folder):
        return True
    snapshots = [parent for parent in folder.parents if parent.name == "snapshots"]
    in_blobs = [content.parent == parent.with_name("blobs") for parent in snapshots]
    return any(in_blobs) and re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", content.name) is not None
