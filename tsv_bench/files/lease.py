"""Leases: what many processes need is made by one of them, also on several machines.

Locks of the system do not reach from one machine to the others on every file system (NFS, Lustre).
A lease on PATH is a file beside it, `.NAME.lease-N`. Whoever creates it owns it: a file can be
created once. A thread of the owner rewrites it every few seconds. Another process that sees no
change for long, by its own clock, takes the owner for dead and creates N + 1: of several, one can.
The last file stays, so that no number is used twice. Before an owner puts a result in its place
(`atomic`), it looks whether the lease is still its own.

A lease saves double work. That files are right whoever writes them, `atomic` sees to.
"""

import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

BEAT = 5.0  # seconds between two signs of life
PATIENCE = 60.0  # seconds without one; what keeps Python's lock for so long looks dead
SHORTEST, LONGEST = 0.02, 1.0  # seconds between two looks at another's lease
NOTICE = 3.0  # seconds of waiting before it is said
CLOCKS = 120.0  # seconds that clocks may be apart; a file server may show a sign of life late
WIDTH = 400  # bytes of a lease: all have as many, so that a rewritten one is never half a one


_compared: set[str] = set()  # machines whose clocks were found to be wrong


class LeaseLost(OSError):
    """Another process has taken over."""


class Lease:
    """A lease that this process has created."""

    def __init__(self, path: Path, number: int) -> None:
        """Create it. Raises FileExistsError if another process has, or else OSError."""
        self.path, self.number = path, number
        self._file = _file(path, number)
        self._about = {"id": secrets.token_hex(8), **_this_process(), "beats": 0}
        self._ended = threading.Event()
        os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            self._write()
        except OSError:  # no room: others need not wait
            self._file.unlink(missing_ok=True)
            raise

    def _write(self) -> None:
        """Say that the owner is alive. Raises FileNotFoundError if another has taken over."""
        self._about |= {"beats": self._about["beats"] + 1, "clock": round(time.time(), 1)}
        descriptor = os.open(self._file, os.O_WRONLY)
        try:
            os.pwrite(descriptor, json.dumps(self._about).ljust(WIDTH).encode(), 0)
        finally:
            os.close(descriptor)  # NFS shows it to others from here on

    @property
    def is_own(self) -> bool:
        """Whether no other process has taken over."""
        number, content = _newest(self.path)
        return number == self.number and _read(content).get("id") == self._about["id"]

    def check(self) -> None:
        """Raise LeaseLost if another process has taken over."""
        if self.is_own:
            return
        other = _read(_newest(self.path)[1])
        raise LeaseLost(
            f"{self.path} is not written: this process gave no sign of life for long, as if it had "
            f"been suspended, and process {other.get('process')} on {other.get('host')} has taken "
            f"over. The same command again uses what that one makes."
        )

    @contextmanager
    def alive(self, beat: float) -> Iterator[None]:
        """Give signs of life until the block ends; others may then have the lease."""
        thread = threading.Thread(target=self._live, args=(beat,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            with suppress(OSError):
                self._about["released"] = True
                self._write()

    def _live(self, beat: float) -> None:
        while not self._ended.wait(beat):
            try:
                self._write()
            except FileNotFoundError:
                return
            except OSError:
                continue  # a network that comes back


_held: ContextVar[tuple[Lease, ...]] = ContextVar("held", default=())


@contextmanager
def leased(path: Path, beat: float = BEAT, patience: float = PATIENCE) -> Iterator[Lease]:
    """Wait until this process alone may make ``path``, and keep others from it in the block.

    Look then whether another process has made it meanwhile. ``beat``, ``patience``: seconds,
    of the owner and of those that wait. Raises OSError if the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lease = _wait(path, beat, patience)
    token = _held.set((*_held.get(), lease))
    try:
        with lease.alive(beat):
            yield lease
    finally:
        _held.reset(token)


def check_leases() -> None:
    """Raise LeaseLost if another process has taken over a lease that is held here."""
    for lease in _held.get():
        lease.check()


def _wait(path: Path, beat: float, patience: float) -> Lease:
    seen, since, began, said, pause = None, 0.0, time.monotonic(), False, SHORTEST
    while True:
        number, content = _newest(path)
        about, now = _read(content), time.monotonic()
        if (number, content) != seen:
            if seen is not None:  # a sign of life that was given just now
                compare_clocks(about)
            seen, since = (number, content), now
        silent = now - since > patience
        if not number or about.get("released") or silent or _is_gone(about):
            if lease := _create(path, number + 1):
                return lease
            continue
        if not said and now - began > NOTICE:
            said = True
            log.info(
                f"waiting for process {about.get('process')} on {about.get('host')}, which makes "
                f"{path}"
            )
        time.sleep(pause)
        pause = min(2 * pause, LONGEST, beat)


def compare_clocks(about: dict[str, Any]) -> None:
    """Warn, once for each machine, if a sign of life that was just given has another time."""
    host, clock = about.get("host"), about.get("clock")
    if not isinstance(clock, int | float) or host in _compared:
        return
    ahead = clock - time.time()
    if abs(ahead) > CLOCKS:
        _compared.add(host)
        log.warning(
            f"the clock of {host} is {abs(ahead) / 60:.0f} minutes "
            f"{'ahead of' if ahead > 0 else 'behind'} that of {socket.gethostname()}. Leases do "
            f"not go by clocks, but times in Runs, logs and caches do: set both by NTP."
        )


def _create(path: Path, number: int) -> Lease | None:
    """Return the lease of this number, or None if another process was first."""
    try:
        lease = Lease(path, number)
    except FileExistsError:
        return None
    numbers = _numbers(path)
    if max(numbers, default=number) > number:  # this process has slept while others came and went
        _file(path, number).unlink(missing_ok=True)
        return None
    for older in numbers:
        if older < number:
            with suppress(OSError):
                _file(path, older).unlink(missing_ok=True)
    return lease


def _file(path: Path, number: int) -> Path:
    return path.with_name(f".{path.name}.lease-{number}")


def _numbers(path: Path) -> list[int]:
    form = re.compile(re.escape(f".{path.name}.lease-") + r"(\d+)")
    return [int(found[1]) for name in os.listdir(path.parent) if (found := form.fullmatch(name))]


def _newest(path: Path) -> tuple[int, bytes]:
    """Return number and content of the last lease; (0, b"") if there was none."""
    while True:
        number = max(_numbers(path), default=0)
        try:
            return number, _file(path, number).read_bytes() if number else b""
        except FileNotFoundError:
            continue  # the next one has just replaced it


def _read(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:  # it has just been created
        return {}
    return found if isinstance(found, dict) else {}


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "process": pid,
        "machine": _machine(),
        "started": _started(pid),
    }


@cache
def _machine() -> str | None:
    """Return what processes have in common that see each other's numbers; None: not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _is_gone(about: dict[str, Any]) -> bool:
    """Return whether the owner is known to have ended: of a process of this machine alone."""
    if not about.get("machine") or about["machine"] != _machine():
        return False
    pid = about["process"]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # another user's
    return _started(pid) != about["started"]


def _started(pid: int) -> str | None:
    """Return when a process was started, by the system's count; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
