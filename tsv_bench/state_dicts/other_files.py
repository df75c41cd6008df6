"""The files beside a checkpoint's weights that go with it into an output."""

import logging
import re
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)


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
