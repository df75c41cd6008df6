"""Printing what a command found, once its files are written."""

import os
import re
import shutil
import sys

WIDTH = 100  # characters of a line that is printed into a file or a pipe

# What is written in place of a character that the standard output cannot encode.
ASCII = {"±": "+-", "·": "*", "×": "x", "–": "-", "−": "-", "…": "..."}


def columns() -> int:
    """Return how many characters a line of the standard output takes: a terminal's, or `WIDTH`."""
    is_terminal = getattr(sys.stdout, "isatty", lambda: False)()
    return shutil.get_terminal_size((WIDTH, 0)).columns if is_terminal else WIDTH


def show(text: str) -> None:
    """Print a text, as `encodable` by the standard output.

    A reader that has left, as `head` does, is told nothing more. Raises OSError if the standard
    output takes no more for another reason, such as a full disk.
    """
    try:
        print(encodable(text, getattr(sys.stdout, "encoding", None) or "utf-8"), flush=True)
    except OSError as error:
        # What is left would be tried again at the end of the process, which reports that badly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OSError(
                f"cannot print the result to the standard output ({error.strerror or error}). "
                f"What was written before is whole; print to another place."
            ) from error


def encodable(text: str, encoding: str) -> str:
    """Return a text without what ``encoding`` lacks: as `ASCII` has it, any other character as ?.

    Columns stay aligned: where a character becomes two, a space before its cell goes.
    """
    for character, plain in ASCII.items():
        if character in text and not _can_encode(character, encoding):
            text = "\n".join(_replaced(line, character, plain) for line in text.split("\n"))
    return text.encode(encoding, "replace").decode(encoding)


def _replaced(line: str, character: str, plain: str) -> str:
    while character in line:
        before, _, after = line.partition(character)
        spare = [match.start() for match in re.finditer(r"(?<=\S)  +(?=\S|$)", before)]
        if len(plain) > 1 and spare:
            before = before[: spare[-1]] + before[spare[-1] + len(plain) - 1 :]
        line = before + plain + after
    return line


def _can_encode(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
