"""The right word for a misspelt one."""

import difflib
from collections.abc import Sequence


def nearest(name: str, candidates: Sequence[str]) -> str:
    """Return the end of a sentence: "; did you mean 'ties'?", or "." if no candidate is close."""
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "."
