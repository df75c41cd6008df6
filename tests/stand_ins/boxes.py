"""Boxes of text in a figure: which of them lie on each other."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def overlapping(texts):
    """Pairs of texts whose boxes share more than a pixel or two, of (text, box) pairs.

    Boxes include the room for ascenders, hence the two pixels.
    """
    x0, y0, x1, y1 = np.array([[b.x0, b.y0, b.x1, b.y1] for _, b in texts]).T
    width = np.minimum.outer(x1, x1) - np.maximum.outer(x0, x0)
    height = np.minimum.outer(y1, y1) - np.maximum.outer(y0, y0)
    pairs = np.argwhere(np.triu((width >= 2) & (height >= 2), k=1))
    return [(texts[i][0], texts[j][0]) for i, j in pairs]


def texts_of(figure):
    """Yield (text, box in pixels) of everything written, as drawn by Agg."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    for axes in figure.axes:
        if not axes.get_visible():
            continue
        legend = axes.get_legend()
        # Ticks outside the limits have labels too, which are not drawn.
        ticks = []
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks += [t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
            ticks += [t.label2 for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
        texts = [*axes.texts, *ticks, axes.xaxis.label, axes.yaxis.label]
        texts += [axes.title, axes._left_title, *(legend.get_texts() if legend else [])]
        yield from boxes(texts, renderer)
    legends = [text for legend in figure.legends for text in legend.get_texts()]
    yield from boxes([*figure.texts, *legends], renderer)


def boxes(texts, renderer):
    for text in texts:
        # Rotated labels have boxes that overlap where the letters do not.
        if text.get_visible() and text.get_text() and text.get_rotation() in (0, 90):
            # The box of the letters; an annotation's own box includes its line.
            yield text.get_text(), Text.get_window_extent(text, renderer)
