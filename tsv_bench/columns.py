"""Text in aligned columns."""

from collections.abc import Sequence


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
