"""The order in which files are renamed and brought to the disk; full and read-only disks."""

import builtins
import errno
import io
import os
import resource
from contextlib import contextmanager
from pathlib import Path


class Disk:
    """Notes every fsync, rename and link of this process, in their order."""

    def __init__(self, monkeypatch):
        self.events = []  # ("sync", path) or ("rename", from, to)
        self._synced = set()
        fsync = os.fsync

        def synced(descriptor):
            self.events.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", synced)
        for name in ("rename", "replace", "link"):
            monkeypatch.setattr(os, name, self._noted(getattr(os, name)))

    def _noted(self, move):
        def noted(source, target):
            source, target = Path(source).absolute(), Path(target).absolute()
            inside = [source, *source.rglob("*")] if source.is_dir() else [source]
            self.events.append(("rename", inside, target))
            move(source, target)

        return noted

    def assert_durable(self, path):
        """What stands at ``path`` was on the disk before it got there, and then its name was."""
        moves = [i for i, event in enumerate(self.events) if event[0] == "rename"]
        [last] = [i for i in moves if self.events[i][2] == path][-1:]
        before = {event[1] for event in self.events[:last] if event[0] == "sync"}
        after = {event[1] for event in self.events[last:] if event[0] == "sync"}
        missing = [source for source in self.events[last][1] if source not in before]
        assert not missing, f"not on the disk when renamed: {missing}"
        assert path.parent in after, f"the name of {path} is not on the disk"


@contextmanager
def full(num_bytes=100_000):
    """A disk on which no file gets larger than this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def read_only(monkeypatch, folder):
    """Let all that would write below ``folder`` fail, as on a file system for reading only."""

    def guard(place, name, writes):
        call = getattr(place, name)

        def guarded(path, *rest, **named):
            inside = isinstance(path, str | os.PathLike) and folder in Path(path).absolute().parents
            if (inside or path == folder) and writes(*rest, **named):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return call(path, *rest, **named)

        monkeypatch.setattr(place, name, guarded)

    for name in ("link", "mkdir", "remove", "rename", "replace", "rmdir", "symlink", "unlink"):
        guard(os, name, lambda *rest, **named: True)
    guard(os, "utime", lambda *rest, **named: True)
    guard(os, "open", lambda flags, *rest, **named: flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR))
    for place in (builtins, io):
        guard(place, "open", lambda mode="r", *rest, **named: not set(mode).isdisjoint("wax+"))
