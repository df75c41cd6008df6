"""The report as files: tables as text, and their figures."""

from collections.abc import Sequence
from pathlib import Path

from tsv_bench.files import replace_text
from tsv_bench.report.tables.table import Table
from tsv_bench.report.text.layouts import LAYOUTS
from tsv_bench.report.text.render import render_csv, render_latex, render_markdown


def write_report(tables: Sequence[Table], out_folder: Path, layout: str = "runs") -> list[Path]:
    """Write the tables as .md, .csv and .tex, and their figures as .svg and .png.

    The names of the texts are those of the layout: table.*, paper.* or leaderboard.*. Returns the
    paths. Raises ValueError for an unknown layout.
    """
    from tsv_bench.report.plots import save_figures  # here: a command without figures starts sooner

    renderings = {"md": render_markdown, "csv": render_csv, "tex": render_latex}
    texts = {end: render(tables, layout) for end, render in renderings.items()}
    paths = [Path(out_folder) / f"{LAYOUTS[layout]}.{end}" for end in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        replace_text(path, text)
    return [*paths, *save_figures(tables, out_folder)]
