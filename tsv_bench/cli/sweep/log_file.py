"""A log of what a command says, with times, beside what it makes."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(process)d: %(message)s"
TIME = "%Y-%m-%dT%H:%M:%S%z"


@contextmanager
def logged_to(path: Path, begins: str) -> Iterator[None]:
    """Add to a file what is logged, beginning with a line of its own, and how it fails.

    The folder has to be there. Progress bars are not logged.
    """
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter(FORMAT, TIME))
    root = logging.getLogger()
    root.addHandler(handler)
    _write(handler, logging.INFO, begins)
    try:
        yield
    except BaseException as error:
        _write(handler, logging.ERROR, "".join(traceback.format_exception(error)).rstrip())
        raise
    finally:
        root.removeHandler(handler)
        handler.close()


def _write(handler: logging.Handler, level: int, text: str) -> None:
    """Write to the file alone: who sits at the terminal is told in another way."""
    handler.handle(logging.LogRecord("tsv_bench", level, __file__, 0, text, None, None))
