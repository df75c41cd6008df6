"""Labels beside points that overlap neither each other nor a point."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from tsv_bench.report.plots.style import GREY

Point = tuple[float, float, str]  # x, y in data coordinates, and the label

# In typographic points, 1/72 inch.
GAP = 7  # between a point and its label
FAR = 28  # the same for a label that had to move up or down
FONT_SIZE = 8
LINE = FONT_SIZE * 1.25  # height of a label


def label_column(axes: Axes, points: Sequence[Point]) -> list[Annotation]:
    """Label points that stand above each other, at their left and in their order.

    Each label is as near its point as the others allow; a thin line joins them if it had to move.
    """
    points = sorted(points, key=lambda point: point[1])
    per_point = 72 / axes.figure.dpi
    heights = [axes.transData.transform(point[:2])[1] * per_point for point in points]
    bottom, top = ((edge * per_point) for edge in (axes.bbox.y0, axes.bbox.y1))
    placed = within(spread(heights, LINE), bottom + LINE / 2, top - LINE / 2, LINE)
    return [
        _annotate(axes, point, (-GAP if abs(new - old) < 1 else -FAR, new - old), "right")
        for point, old, new in zip(points, heights, placed, strict=True)
    ]


def label_others(axes: Axes, points: Sequence[Point], occupied: Sequence[Bbox]) -> list[Annotation]:
    """Label each point at the nearest place that is not ``occupied``, the highest point first."""
    occupied = list(occupied)
    scale = axes.figure.dpi / 72
    shifts = sorted((step * LINE for step in range(-30, 31)), key=abs)
    labels = []
    for point in sorted(points, key=lambda point: -point[1]):
        width, height = _size(axes, point[2])
        x, y = axes.transData.transform(point[:2])
        found = (GAP, 0.0), "left", None  # if no place is free
        for shift in shifts:
            away = GAP if abs(shift) < LINE else FAR
            bottom = y + shift * scale - height / 2
            starts = {"left": x + away * scale, "right": x - away * scale - width}
            boxes = {s: Bbox.from_bounds(x0, bottom, width, height) for s, x0 in starts.items()}
            if free := [side for side, box in boxes.items() if _is_free(box, axes, occupied)]:
                side = free[0]
                found = (away if side == "left" else -away, shift), side, boxes[side]
                break
        offset, side, box = found
        occupied += [box] if box else []
        labels.append(_annotate(axes, point, offset, side))
    return labels


def spread(values: Sequence[float], distance: float) -> list[float]:
    """Move values as little as needed (least squares) to be ``distance`` apart in this order."""
    from scipy.optimize import isotonic_regression  # here: it takes half a second

    # Values are ``distance`` apart if, with these steps taken off, they do not decrease.
    steps = distance * np.arange(len(values))
    return (isotonic_regression(values - steps).x + steps).tolist()


def within(values: Sequence[float], low: float, high: float, distance: float) -> list[float]:
    """Move increasing values into [low, high] if they fit, keeping them ``distance`` apart."""
    moved = [max(value, low + distance * i) for i, value in enumerate(values)]
    last = len(moved) - 1
    return [min(value, high - distance * (last - i)) for i, value in enumerate(moved)]


def _is_free(box: Bbox, axes: Axes, occupied: Sequence[Bbox]) -> bool:
    """Return whether the box is within the axes' width and clear of all others."""
    inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
    return inside and not any(box.overlaps(other) for other in occupied)


def _size(axes: Axes, text: str) -> tuple[float, float]:
    """Return the width and height of a label in pixels."""
    label = axes.text(0, 0, text, fontsize=FONT_SIZE)
    box = label.get_window_extent(axes.figure.canvas.get_renderer())
    label.remove()
    return box.width, box.height


def _annotate(axes: Axes, point: Point, offset: tuple[float, float], align: str) -> Annotation:
    """Write a point's label at an offset in typographic points, with a line if it is far."""
    x, y, text = point
    line = {
        "arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 2, "shrinkB": 3,
        "patchA": None,  # else the line would begin at the edge of the text's box
        "relpos": (1 if align == "right" else 0, 0.5),  # begin at the end of the text
    }  # fmt: skip
    label = axes.annotate(
        text, (x, y), offset, textcoords="offset points", ha=align, va="center",
        fontsize=FONT_SIZE, arrowprops=line if abs(offset[0]) > GAP else None,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3},
    )  # fmt: skip
    label.set_in_layout(False)  # a new layout would move the point away from its label
    return label
