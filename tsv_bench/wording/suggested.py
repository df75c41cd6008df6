"""Commands that messages suggest. What the running command was told is repeated in them.

Pasted, such a command means the same data, models and folders. The commands themselves say what is
repeated (cli/typed/repeated.py); from Python it is nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

Repeat = Callable[[str, Sequence[str], Sequence[str]], Sequence[str]]

_repeat: ContextVar[Repeat | None] = ContextVar("repeat", default=None)


def command(program: str, *settings: str, without: Sequence[str] = ()) -> str:
    """Return a command line: ``settings``, and what the running command has chosen besides.

    ``without``: keys and groups that are not repeated.
    """
    repeat = _repeat.get()
    return " ".join([program, *(repeat(program, settings, without) if repeat else settings)])


@contextmanager
def repeating(repeat: Repeat) -> Iterator[None]:
    """Let ``repeat`` return the arguments of suggested commands within the block, quoted."""
    token = _repeat.set(repeat)
    try:
        yield
    finally:
        _repeat.reset(token)
