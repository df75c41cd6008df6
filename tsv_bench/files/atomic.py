"""Write files and folders whole or not at all, also through a kill and a loss of power.

What is written stands in a hidden folder beside its place until it is whole and on the disk. That
folder is held (`holding`): when its process was killed, the next one that writes there removes it.
"""

import itertools
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tsv_bench.files.holding import hold
from tsv_bench.files.lease import check_leases

log = logging.getLogger(__name__)

# Names of temporary folders, and of what `claim` holds.
TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8}\.tmp|claim)")
# What versions before this one moved aside while they replaced a folder.
ASIDE = re.compile(r"\.(.+)\.[0-9a-f]{8}\.old")
NEW, OLD, JOURNAL = "new", "old", "replacing.json"  # in a temporary folder


def replace_atomically(path: Path, write: Callable[[Path], Any], *, durable: bool = True) -> None:
    """Write a file or folder under a temporary name beside ``path``, then rename it into place.

    ``write`` gets the temporary path. A file may replace an older one, a folder may not.
    ``durable``: after a loss of power, too, ``path`` is the old one or the new one, whole. False
    spares the wait for the disk, for what is checked when it is read and can be made again. Raises
    LeaseLost, and writes nothing, if another process has taken over a lease that is held.
    """
    make_folder(path.parent)
    sweep(path.parent)
    with temporary_beside(path) as temporary:
        new = temporary / path.name
        try:
            write(new)
        except Exception:
            _check_writable(temporary)
            raise
        if durable:
            sync_tree(new)
        check_leases()
        os.replace(new, path)
        if durable:
            sync(path.parent)


def replace_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, as `replace_atomically` does."""
    replace_atomically(path, lambda new: new.write_text(text, encoding="utf-8", newline=""))


def _check_writable(temporary: Path) -> None:
    """Raise OSError if nothing can be written here: libraries hide that behind their own errors."""
    try:
        (temporary / "probe").write_bytes(bytes(2**20))
    except OSError as error:
        raise OSError(
            error.errno, f"{error.strerror}. Make room, or choose another folder", temporary.parent
        ) from error


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Make a hidden folder beside ``path``, held until the block ends and removed then."""
    held = None
    try:
        while True:
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
            temporary.mkdir(parents=True)  # another process may just have removed an empty folder
            try:
                held = hold(temporary)
            except (FileNotFoundError, BlockingIOError):
                continue  # another process has swept it before it was held
            except OSError:
                pass  # the file system has no locks, and no process sweeps there
            break
        yield temporary
    finally:
        try:
            shutil.rmtree(temporary, ignore_errors=True)
        except KeyboardInterrupt:  # what it left would be taken for a killed process'
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finally:
            if held is not None:
                os.close(held)


def sweep(folder: Path) -> None:
    """Remove what killed processes have left half written in ``folder``, and say so.

    A replacement of an output's files that was cut short is taken back.
    """
    if not folder.is_dir():
        return
    for name in os.listdir(folder):
        aside = ASIDE.fullmatch(name)
        if aside and not os.path.lexists(folder / aside[1]):
            os.rename(folder / name, folder / aside[1])
            log.warning(
                f"{folder / aside[1]} was moved aside by a process that was killed: restored"
            )
    for temporary in (folder / name for name in os.listdir(folder) if TEMPORARY.fullmatch(name)):
        try:
            held = hold(temporary)
        except OSError:
            continue  # another process is at work in it or has removed it
        try:
            if temporary.suffix == ".claim":
                temporary.unlink()
                continue
            if temporary.is_dir() and not any(temporary.iterdir()):
                temporary.rmdir()  # perhaps of a process that is alive, and makes another one
                continue
            if output := undo(temporary):
                log.warning(f"{output} was being replaced by a process that was killed: restored")
            # Versions before this one wrote into a hidden file.
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()
            log.warning(f"removed {temporary}: a process that was killed left it half written")
        except OSError as error:
            log.warning(f"could not remove {temporary}, left by a process that was killed: {error}")
        finally:
            os.close(held)


def paths_below(folder: Path, end: str | tuple[str, ...]) -> Iterator[Path]:
    """Yield all that is in a folder and the folders in it, and whose name has one of these ends.

    Not what another process is writing, or has left half written; nor what is removed meanwhile.
    """
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not TEMPORARY.fullmatch(name)]
        yield from (Path(place) / name for name in (*folders, *files) if name.endswith(end))


def replace_files(temporary: Path, output: Path, names: Iterable[str]) -> None:
    """Put the files of the folder ``temporary``/new into the folder ``output``.

    The files in ``output`` of these ``names`` go, all others there stay. An interruption brings
    back what was there; after a kill, `sweep` does. Raises FileExistsError if one of the others
    has the name of a new one.
    """
    new = sorted(path.name for path in (temporary / NEW).iterdir())
    old = sorted(name for name in set(names) if os.path.lexists(output / name))
    added = [name for name in new if name not in old]
    for name in added:
        if os.path.lexists(output / name):
            raise FileExistsError(
                f"{output / name} is in the way: {output} gets a file of this name, and this one "
                f"was written by somebody else. Move it, or name another place."
            )
    (temporary / OLD).mkdir()
    journal = {"output": os.path.relpath(output, temporary.parent), "added": added}
    (temporary / JOURNAL).write_text(json.dumps(journal), encoding="utf-8")
    sync_tree(temporary)
    sync(temporary.parent)
    try:
        for name in old:
            os.rename(output / name, temporary / OLD / name)
        for name in new:
            os.rename(temporary / NEW / name, output / name)
        sync(output)
        (temporary / JOURNAL).unlink()  # from here on the new ones stand
        sync(temporary)
    except BaseException:
        undo(temporary)
        raise


def undo(temporary: Path) -> Path | None:
    """Take back what `replace_files` has begun; return the output, or None if there is nothing."""
    try:
        journal = json.loads((temporary / JOURNAL).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None  # an unfinished journal is older than the first move
    output = temporary.parent / journal["output"]
    # In this order, so that a kill in between can be taken back again.
    for name in journal["added"]:
        if (output / name).is_dir():
            shutil.rmtree(output / name)
        else:
            (output / name).unlink(missing_ok=True)
    for path in (temporary / OLD).iterdir():
        os.replace(path, output / path.name)
    sync(output)
    (temporary / JOURNAL).unlink()
    return output


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder that is on the disk.

    Raises FileExistsError if something is there, unless it is an empty folder.
    """
    if source.is_dir():
        try:
            os.rename(source, target)
        except OSError as error:
            if os.path.lexists(target):
                raise FileExistsError(str(target)) from error
            raise
    else:
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if os.path.lexists(target):
                raise FileExistsError(str(target)) from None
            os.rename(source, target)
    sync(target.parent)


def rename_aside(source: Path, output: Path) -> FileExistsError:
    """Rename to the first free name of output-2, output-3, ...; return the error that says so."""
    for number in itertools.count(2):
        aside = output.with_name(f"{output.stem}-{number}{output.suffix}")
        try:
            rename(source, aside)
            break
        except FileExistsError:
            continue
    return FileExistsError(
        f"{output} has appeared while this was computed, and is left as it is. What was to be "
        f"written there is in {aside}."
    )


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, so that they outlast a loss of power."""
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for parent in made:
        sync(parent.parent)


def sync_tree(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk."""
    if path.is_dir():
        for inside in path.iterdir():
            sync_tree(inside)
    sync(path)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError if path.is_dir() else ()):  # not every file system syncs folders
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
