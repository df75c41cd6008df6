"""Text in aligned columns."""

from collections.abc import Sequence


def align_within(rows: Sequence[Sequence[str]], gap: int, width: int) -> list[str]:
    """Return the rows aligned in blocks of columns, none wider than ``width`` if that can be.

    Each block repeats the first column. A block has one other column at least.
    """
    parts, start = [], 1
    while True:
        stop = start + 1
        text = align([[row[0], *row[start:stop]] for row in rows], gap)
        while stop < len(rows[0]):
            wider = align([[row[0], *row[start : stop + 1]] for row in rows], gap)
            if widest(wider) > width:
                break
            text, stop = wider, stop + 1
        parts.append(text)
        start = stop
        if start >= len(rows[0]):
            return parts


def widest(text: str) -> int:
    """Return the number of characters of a text's longest line."""
    return max(map(len, text.split("\n")))


def align(rows: Sequence[Sequence[str]], gap: int, num_left: int = 1) -> str:
    """Return the rows as text, each column as wide as its widest cell, ``gap`` spaces apart.

    The first ``num_left`` columns are aligned left, all others right. A cell may have several
    lines.
    """
    columns = zip(*rows, strict=True)
    widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in columns]
    lines = []
    for cells in rows:
        height = max(cell.count("\n") for cell in cells) + 1
        split = [cell.split("\n") + [""] * height for cell in cells]
        for i in range(height):
            line = [
                cell[i].ljust(width) if column < num_left else cell[i].rjust(width)
                for column, (cell, width) in enumerate(zip(split, widths, strict=True))
            ]
            lines.append((" " * gap).join(line).rstrip())
    return "\n".join(lines)
