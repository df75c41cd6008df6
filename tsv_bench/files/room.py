"""Whether a folder can be written to and its disk has room."""

import shutil
from pathlib import Path

from tsv_bench.files.atomic import sweep, temporary_beside


def check_room(
    folder: Path,
    num_bytes: int,
    setting: str = "paths.runs=, paths.checkpoints= or paths.data=",
) -> None:
    """Check that ``folder`` can be written to and its disk has ``num_bytes`` free.

    What killed processes have left half written there goes first, and counts as free.

    ``setting`` names the setting that chooses another folder. Raises OSError if the check fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        with temporary_beside(folder / "probe") as temporary:
            (temporary / "probe").write_bytes(b"1")
    except OSError as error:
        is_file = folder.exists() and not folder.is_dir()
        why = "it is a file" if is_file else error.strerror or error
        raise OSError(
            f"cannot write to {folder} ({why}). Choose another folder with {setting}."
        ) from error
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise OSError(
            f"{folder} has {free / 1e6:.0f} MB free, {num_bytes / 1e6:.0f} MB are needed. Make "
            f"room, or choose a folder on another disk."
        )


def check_place(folder: Path, num_bytes: int, setting: str = "output=") -> None:
    """Check as `check_room` does, without making ``folder``: what is refused leaves nothing behind.

    Raises OSError if the check fails.
    """
    place = folder.absolute()
    check_room(next(f for f in (place, *place.parents) if f.exists()), num_bytes, setting)
