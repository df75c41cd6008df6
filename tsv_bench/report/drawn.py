"""Figures that are in a folder already, as they would be drawn again: drawing takes seconds.

The captions end with a mark: a hash of all that figures are made of, and of the files themselves.
It holds as long as nobody has changed either.
"""

import hashlib
import pickle
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote

from tsv_bench.files import replace_text
from tsv_bench.report.tables.table import Table

CAPTIONS = "figures.md"
ENDS = ("svg", "png")
LINK = re.compile(r"^!\[.*\]\((.+)\.png\)$", re.MULTILINE)


def still_drawn(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Return the figures of these tables and their captions, or [] if they are to be drawn."""
    captions = Path(folder) / CAPTIONS
    with suppress(OSError, ValueError):
        paths = _figures(captions)
        if captions.read_text(encoding="utf-8").endswith(_mark(tables, paths)):
            return [*paths, captions]
    return []


def listed(folder: Path) -> list[Path]:
    """Return the figures that the captions in a folder name, and the captions; [] without them."""
    captions = Path(folder) / CAPTIONS
    with suppress(OSError, ValueError):
        return [*_figures(captions), captions]
    return []


def _figures(captions: Path) -> list[Path]:
    stems = [unquote(link) for link in LINK.findall(captions.read_text(encoding="utf-8"))]
    return [captions.with_name(f"{stem}.{end}") for stem in stems for end in ENDS]


def mark(tables: Sequence[Table], paths: Sequence[Path]) -> None:
    """Mark the captions, the last of these paths, as those of the figures before."""
    *figures, captions = paths
    text = captions.read_text(encoding="utf-8")
    replace_text(captions, text + "\n" + _mark(tables, figures))


def _mark(tables: Sequence[Table], figures: Iterable[Path]) -> str:
    """Return the mark. Raises OSError if a figure cannot be read."""
    code = (files("tsv_bench.report") / "plots").iterdir()
    parts = [path.read_bytes() for path in sorted(code, key=str) if path.name.endswith(".py")]
    parts += [version("matplotlib").encode(), pickle.dumps(list(tables))]
    parts += [path.read_bytes() for path in figures]
    digests = b"".join(hashlib.sha256(part).digest() for part in parts)
    return f"<!-- drawn: {hashlib.sha256(digests).hexdigest()} -->\n"
