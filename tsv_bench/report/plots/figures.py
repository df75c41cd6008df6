"""All figures of a table with their captions, and the reasons for those that are left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from matplotlib import rc_context
from matplotlib.figure import Figure

from tsv_bench.files import replace_text
from tsv_bench.report.plots import accuracies, alphas, radar, ranks, rounds, searches, sizes
from tsv_bench.report.plots.style import STYLE, NothingToPlot, save_figure
from tsv_bench.report.tables.table import Table
from tsv_bench.wording.escaping import check_name, escape_markdown

# name -> (function that draws it, function that captions it); NothingToPlot leaves it out.
FAMILIES = {
    "methods": (accuracies.plot_methods, accuracies.caption_methods),
    "tasks": (accuracies.plot_tasks, accuracies.caption_tasks),
    "radar": (radar.plot_radar, radar.caption_radar),
    "alpha": (alphas.plot_alphas, alphas.caption_alphas),
    "rank": (ranks.plot_ranks, ranks.caption_ranks),
    "size": (sizes.plot_sizes, sizes.caption_sizes),
    "rounds": (rounds.plot_rounds, rounds.caption_rounds),
    "searches": (searches.plot_searches, searches.caption_searches),
}
CAPTIONS = "figures.md"


@dataclass(frozen=True)
class Drawn:
    """A figure of a table."""

    name: str  # in `FAMILIES`
    caption: str
    figure: Figure


def draw_figures(table: Table) -> tuple[list[Drawn], list[str]]:
    """Draw the figures of a table; return them, and a sentence for each that is left out."""
    drawn, left_out = [], []
    for name, (plot, caption) in FAMILIES.items():
        try:
            with rc_context(STYLE):
                drawn.append(Drawn(name, caption(table), plot(table)))
        except NothingToPlot as nothing:
            left_out.append(f"No figure {name!r}: {nothing}")
    return drawn, left_out


def save_figures(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Write every figure as svg and png, and their captions to figures.md; return the paths.

    Raises ValueError if a backbone or suite has a name that may not become a part of a file's.
    """
    folder = Path(folder)
    paths, captions = [], []
    for table in tables:
        check_name(table.backbone, "the backbone's name")
        check_name(table.suite, "the suite's name")
        drawn, left_out = draw_figures(table)
        captions.append(f"## {escape_markdown(table.title)}")
        for one in drawn:
            stem = f"{table.name}-{one.name}"
            paths += save_figure(one.figure, folder, stem)
            link = quote(f"{stem}.png", safe="+")
            captions.append(f"![{one.name}]({link})\n\n{escape_markdown(one.caption)}")
        captions += map(escape_markdown, left_out)
    path = folder / CAPTIONS
    text = "\n\n".join(captions) + "\n"
    replace_text(path, text)
    return [*paths, path]
