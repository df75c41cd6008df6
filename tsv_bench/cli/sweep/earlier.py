"""The report that lies already where a sweep writes its own: another's is not lost.

A sweep marks its report with the Runs that are in it. A report of the same Runs or fewer is
replaced. Any other, as one that tsv-report has written since, goes into a folder beside.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import yaml

from tsv_bench.files import replace_text, sha256
from tsv_bench.report.drawn import listed
from tsv_bench.report.text.layouts import LAYOUTS
from tsv_bench.report.text.tidy import FILES

MARK = "sweep.yaml"
ENDS = ("md", "csv", "tex")


def set_aside(folder: Path, runs: Iterable[Path]) -> Path | None:
    """Move the report in ``folder`` beside unless it is of some of these Runs; return where to."""
    texts = [path for path in _texts(folder) if path.exists()]
    if not texts or _is_of(folder, runs, texts):
        return None
    written = datetime.fromtimestamp(max(path.stat().st_mtime for path in texts))
    place = folder / f"{written:%Y-%m-%d_%H-%M-%S-%f}"
    place.mkdir(exist_ok=True)
    for path in [*texts, *listed(folder), *(folder / name for name in (*FILES, MARK))]:
        with suppress(FileNotFoundError):
            path.rename(place / path.name)
    return place


def mark(folder: Path, runs: Iterable[Path]) -> None:
    """Mark the report in ``folder`` as that of these Runs."""
    content = {
        "runs": sorted(map(_name, runs)),
        "sha256": {path.name: sha256(path) for path in _texts(folder) if path.exists()},
    }
    replace_text(folder / MARK, yaml.safe_dump(content))


def _is_of(folder: Path, runs: Iterable[Path], texts: Iterable[Path]) -> bool:
    """Return whether the report, unchanged since it was marked, has no other Runs than these."""
    with suppress(OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        content: Mapping = yaml.safe_load((folder / MARK).read_text(encoding="utf-8"))
        same = content["sha256"] == {path.name: sha256(path) for path in texts}
        return same and set(content["runs"]) <= set(map(_name, runs))
    return False


def _texts(folder: Path) -> list[Path]:
    return [folder / f"{name}.{end}" for name in LAYOUTS.values() for end in ENDS]


def _name(run: Path) -> str:
    """Return backbone, suite and file of a Run: the folder of Runs may have been moved."""
    return "/".join(run.parts[-3:])
