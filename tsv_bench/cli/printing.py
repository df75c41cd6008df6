"""Printing what a command found, once its files are written."""

import os
import sys


def show(text: str) -> None:
    """Print a text. A character that the standard output cannot encode becomes "?".

    A reader that has left, as `head` does, is told nothing more. Raises OSError if the standard
    output takes no more for another reason, such as a full disk.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "replace").decode(encoding), flush=True)
    except OSError as error:
        # What is left would be tried again at the end of the process, which reports that badly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise OSError(
                f"cannot print the result to the standard output ({error.strerror or error}). "
                f"What was written before is whole; print to another place."
            ) from error
