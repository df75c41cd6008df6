"""The report as files: tables as text, and their figures."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tsv_bench.files import leased, replace_text
from tsv_bench.report.drawn import CAPTIONS, mark, still_drawn
from tsv_bench.report.tables.table import Table
from tsv_bench.report.text.layouts import LAYOUTS
from tsv_bench.report.text.render import render_csv, render_latex, render_markdown
from tsv_bench.report.text.tidy import FILES


def writing(folder: Path) -> AbstractContextManager:
    """Keep other processes from writing a report into ``folder`` until the block ends.

    Waits for one that does.
    """
    return leased(Path(folder) / CAPTIONS)


def write_report(tables: Sequence[Table], out_folder: Path, layout: str = "runs") -> list[Path]:
    """Write the tables as .md, .csv and .tex, their Runs as csv, their figures as .svg and .png.

    See `write_texts` and `write_figures`. Returns the paths. Raises ValueError for an unknown
    layout.
    """
    return [*write_texts(tables, out_folder, layout), *write_figures(tables, out_folder)]


def write_texts(tables: Sequence[Table], out_folder: Path, layout: str = "runs") -> list[Path]:
    """Write the tables and their Runs as text; return the paths.

    The names of the tables are those of the layout: table.*, paper.* or leaderboard.*. The Runs are
    runs.csv and alphas.csv, see text/tidy.py. Raises ValueError for an unknown layout.
    """
    renderings = {"md": render_markdown, "csv": render_csv, "tex": render_latex}
    texts = {
        f"{LAYOUTS[layout]}.{end}": render(tables, layout) for end, render in renderings.items()
    } | {name: render(tables) for name, render in FILES.items()}
    paths = [Path(out_folder) / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        replace_text(path, text)
    return paths


def write_figures(tables: Sequence[Table], out_folder: Path) -> list[Path]:
    """Draw the tables' figures; return the paths. Those that are there as they would be stay."""
    return still_drawn(tables, out_folder) or _draw(tables, out_folder)


def _draw(tables: Sequence[Table], folder: Path) -> list[Path]:
    from tsv_bench.report.plots import save_figures  # here: it takes matplotlib

    figures = save_figures(tables, folder)
    mark(tables, figures)
    return figures
