"""Boxes of text in a figure: which of them lie on each other."""

import numpy as np


def overlapping(texts):
    """Pairs of texts whose boxes share more than a pixel or two, of (text, box) pairs.

    Boxes include the room for ascenders, hence the two pixels.
    """
    x0, y0, x1, y1 = np.array([[b.x0, b.y0, b.x1, b.y1] for _, b in texts]).T
    width = np.minimum.outer(x1, x1) - np.maximum.outer(x0, x0)
    height = np.minimum.outer(y1, y1) - np.maximum.outer(y0, y0)
    pairs = np.argwhere(np.triu((width >= 2) & (height >= 2), k=1))
    return [(texts[i][0], texts[j][0]) for i, j in pairs]
