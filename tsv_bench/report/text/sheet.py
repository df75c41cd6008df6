"""Sheets: tables of texts, rendered as markdown, LaTeX, or aligned text for a terminal."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from tsv_bench.wording.columns import align_within
from tsv_bench.wording.escaping import escape_markdown

NUMBER = re.compile(r"[+-]?\d")
LABEL_WIDTH = 28  # characters; longer texts of the first column continue on the next line
HEADER_WIDTH = 20  # characters; longer heads of the other columns continue on the next line
# LaTeX's special characters, and two that its text font lacks.
ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "±": r"$\pm$", "·": r"$\cdot$",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of texts: labels in the first column, numbers in the others.

    A row whose other cells are empty is a heading of the rows below it.
    """

    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    groups: Sequence[tuple[str, int]] = ()  # above the header: (text, number of columns it spans)


def markdown(sheet: Sheet) -> str:
    """Render a sheet as markdown."""
    spans = [text for text, count in sheet.groups for _ in range(count)] or [""] * len(sheet.header)
    header = [
        escape_markdown(" ".join(filter(None, pair)))
        for pair in zip(spans, sheet.header, strict=True)
    ]
    lines = [markdown_row(header), "|".join(["", "-", *["-:"] * (len(header) - 1), ""])]
    for row in sheet.rows:
        cells = [escape_markdown(cell.strip()) for cell in row]
        lines.append(markdown_row([f"**{cells[0]}**", *cells[1:]] if is_heading(row) else cells))
    body = [f"## {escape_markdown(sheet.title)}", escape_markdown(sheet.caption), "\n".join(lines)]
    body += ["\n".join(f"- {escape_markdown(n)}" for n in sheet.notes)] if sheet.notes else []
    return "\n\n".join(body)


def terminal(sheet: Sheet, width: int, gap: int = 2) -> str:
    """Render a sheet as aligned text of ``width`` columns.

    Columns that do not fit side by side stand in blocks below each other.
    """
    header = [wrap(text, HEADER_WIDTH, indent="") for text in sheet.header]
    rows = [[wrap_label(row[0]), *row[1:]] for row in [header, *sheet.rows]]
    parts = [f"{wrap(sheet.title, width)}\n{wrap(sheet.caption, width)}"]
    parts += align_within(rows, gap, width)
    return "\n\n".join([*parts, *notes(sheet.notes, width)])


def notes(texts: Sequence[str], width: int) -> list[str]:
    """Return all notes as one wrapped text in a list; [] if there are none."""
    return ["\n".join(wrap(f"note: {text}", width) for text in texts)] if texts else []


def wrap(text: str, width: int, indent: str = "  ") -> str:
    """Break a text into lines of ``width`` characters, all but the first indented."""
    return textwrap.fill(text, width, subsequent_indent=indent, break_on_hyphens=False)


def wrap_label(text: str) -> str:
    """Break a row's label into lines of `LABEL_WIDTH`, keeping its indentation."""
    indent = text[: len(text) - len(text.lstrip())]
    return textwrap.indent(wrap(text.strip(), LABEL_WIDTH - len(indent)), indent)


def is_heading(row: Sequence[str]) -> bool:
    """Return whether all cells but the first are empty."""
    return not any(row[1:])


def markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def latex(sheet: Sheet) -> str:
    r"""Render a sheet as a LaTeX table, shrunk to the line if it is wider.

    The document needs booktabs and graphicx.
    """
    lines = [r"\begin{table}", r"\centering", r"\footnotesize"]
    lines += [rf"\caption{{{escape(sheet.title)}. {escape(sheet.caption)}}}"]
    lines += [r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(sheet.header) - 1)}}}", r"\toprule"]
    lines += _spanning(sheet.groups)
    lines += [_latex_row(sheet.header), r"\midrule"]
    for number, row in enumerate(sheet.rows):
        if is_heading(row):
            lines += [r"\midrule"] if number else []
            lines.append(rf"\multicolumn{{{len(row)}}}{{l}}{{\textit{{{escape(row[0])}}}}} \\")
        else:
            lines.append(_latex_row(row))
    lines += [r"\bottomrule", r"\end{tabular}}"]
    lines += [rf"\par {escape(note)}" for note in sheet.notes]
    return "\n".join([*lines, r"\end{table}"])


def _spanning(groups: Sequence[tuple[str, int]]) -> list[str]:
    """Return the line of groups above the header, each underlined."""
    if not groups:
        return []
    cells, rules, column = [], [], 1
    for text, count in groups:
        if not text:
            cells += [""] * count
        else:
            cells.append(rf"\multicolumn{{{count}}}{{c}}{{{escape(text)}}}")
            rules.append(rf"\cmidrule(lr){{{column}-{column + count - 1}}}")
        column += count
    return [" & ".join(cells) + r" \\", "".join(rules)]


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(_latex_cell(cell) for cell in cells) + r" \\"


def _latex_cell(text: str) -> str:
    """Return a cell in LaTeX: indented as the text, a minus for a hyphen, a dash for nothing."""
    indent = r"\quad " if text.startswith(" ") else ""
    text = text.strip()
    if text == "-":
        return "--"
    escaped = escape(text)
    if NUMBER.match(text):
        escaped = re.sub(r"(?<![\w.$])-(?=\d)", "$-$", escaped)
    # Braces: LaTeX would take a bracket or a star at the start of a line for an option of \\.
    return indent + (f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped)


def escape(text: str) -> str:
    """Escape LaTeX's special characters."""
    return "".join(ESCAPES.get(character, character) for character in text)
