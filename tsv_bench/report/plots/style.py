"""The style of all figures, and writing them.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; methods also differ by
marker. An svg keeps its text as text, and the same Runs give the same bytes.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tsv_bench.files import replace_atomically

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
GREY = "#666666"
LIGHT = "0.92"  # grey of grids
INCH_PER_CHARACTER = 0.085  # in the default font at 10 points
DOTS_PER_INCH = 150
MAX_SIDE = 400  # inches; matplotlib draws less than 65,536 dots
MAX_AREA = 2500  # square inches, of which each takes 90 kB of memory
PERCENT = FuncFormatter(lambda fraction, _: f"{100 * fraction:g}%")
STYLE = {
    "text.parse_math": False,  # a label may have a $: knobs can be patterns
    "svg.fonttype": "none",  # as text, which can be searched and copied
    "svg.hashsalt": "tsv-bench",  # ids that depend on the content alone
}


class NothingToPlot(ValueError):
    """Raised if a table has nothing for a figure; the message says what is missing."""


def new_figure(width: float, height: float) -> Figure:
    """Make a figure of this size in inches, outside pyplot's windows and global state.

    Raises NothingToPlot if it is too large to draw.
    """
    if max(width, height) > MAX_SIDE or width * height > MAX_AREA:
        raise NothingToPlot(
            f"it would be {width:.0f} by {height:.0f} inches, too large to draw. Fewer tasks or "
            f"methods, or shorter labels, make it smaller."
        )
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def color_and_marker(index: int) -> tuple[str, str]:
    """Return the colour and the marker of a method by its number; 49 pairs are distinct."""
    return COLORS[index % 7], MARKERS[(index + index // 7) % 7]


def clean(axes: Axes, grid: str = "both") -> None:
    """Put a light grid behind the data and remove the box around it."""
    axes.grid(axis=grid, color=LIGHT)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def enumerated(texts: Sequence[str]) -> str:
    """Join texts: 'a', 'a and b', 'a, b and c'."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def svg_bytes(figure: Figure) -> bytes:
    """Return a figure as svg; the same figure gives the same bytes at any time."""
    buffer = io.BytesIO()
    _write(figure, buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as png."""
    buffer = io.BytesIO()
    _write(figure, buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()


def save_figure(figure: Figure, folder: Path, stem: str) -> list[Path]:
    """Write ``stem``.svg and ``stem``.png; return their paths."""
    paths = []
    for end, content in (("svg", svg_bytes(figure)), ("png", png_bytes(figure))):
        paths.append(Path(folder) / f"{stem}.{end}")
        replace_atomically(paths[-1], lambda temporary, c=content: temporary.write_bytes(c))
    return paths


def _write(figure: Figure, file: io.BytesIO, **how: Any) -> None:
    with rc_context(STYLE):
        figure.savefig(file, **how)
