"""Boxes of text in a figure: which of them lie on each other."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg


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
    texts = [figure._supxlabel, figure._supylabel]
    for legend in figure.legends:
        texts += legend.get_texts()
    for axes in figure.axes:
        if not axes.get_visible():
            continue
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
            texts += [axis.label, *(tick.label1 for tick in ticks)]
        texts += [axes.title, *axes.texts]
    for text in filter(None, texts):
        if text.get_visible() and text.get_text():
            yield text.get_text(), text.get_window_extent(renderer)
