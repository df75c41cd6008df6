"""The parts of the page that need no script: tables of means, notes and figures, as html."""

import base64
from collections.abc import Sequence
from html import escape

from tsv_bench.benchmark.runs import Run
from tsv_bench.report.plots import draw_figures, svg_bytes
from tsv_bench.report.tables.table import Table
from tsv_bench.report.text.sheet import Sheet

BROAD = 640  # pixels; a wider figure is not shrunk to a phone's width


def page_summary(runs: Sequence[Run]) -> str:
    """Return a line on the number of Runs, backbones, suites and methods."""
    newest = max(run.created for run in runs)
    counts = [_count(runs, "backbone"), _count(runs, "suite"), _count(runs, "method")]
    plural = "s" if len(runs) > 1 else ""
    return escape(f"{len(runs)} Run{plural}: {', '.join(counts)}. The newest is of {newest[:10]}.")


def sheet_sections(sheets: Sequence[Sheet]) -> str:
    """Return the sheets as html tables with their notes."""
    return "\n".join(f"<h3>{escape(sheet.title)}</h3>\n{_sheet(sheet)}" for sheet in sheets)


def figure_sections(tables: Sequence[Table]) -> str:
    """Return the figures of every table with captions, and the reasons for missing ones."""
    return "\n".join(f"<h3>{escape(table.title)}</h3>\n{_figures(table)}" for table in tables)


def _count(runs: Sequence[Run], name: str) -> str:
    number = len({getattr(run, name) for run in runs})
    return f"{number} {name}{'s' if number > 1 else ''}"


def _sheet(sheet: Sheet) -> str:
    lines = [f"<p>{escape(sheet.caption)}</p>", f'<div class="wide" tabindex="0" role="region" '
             f'aria-label="{escape(sheet.title)}"><table>', "<thead>"]  # fmt: skip
    if sheet.groups:
        spans = (f'<th colspan="{count}" scope="colgroup">{escape(text)}</th>'
                 for text, count in sheet.groups)  # fmt: skip
        lines.append(f"<tr>{''.join(spans)}</tr>")
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in sheet.header)
    lines += [f"<tr>{heads}</tr>", "</thead>", "<tbody>"]
    for first, *cells in sheet.rows:
        indent = ' class="indent"' if first.startswith(" ") else ""
        numbers = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row"{indent}>{escape(first.strip())}</th>{numbers}</tr>')
    lines += ["</tbody></table></div>", _list(sheet.notes)]
    return "\n".join(lines)


def _figures(table: Table) -> str:
    drawn, left_out = draw_figures(table)
    parts = []
    for one in drawn:
        data = base64.b64encode(svg_bytes(one.figure)).decode("ascii")
        width, height = (round(inches * 96) for inches in one.figure.get_size_inches())
        broad = ' class="broad"' if width > BROAD else ""
        parts.append(
            f'<figure><div class="wide" tabindex="0" role="region" aria-label="figure {one.name}">'
            f'<img{broad} src="data:image/svg+xml;base64,{data}" width="{width}" height="{height}" '
            f'alt="{escape(one.caption)}"></div><figcaption>{escape(one.caption)}</figcaption>'
            f"</figure>"
        )
    return "\n".join([*parts, _list(left_out)])


def _list(texts: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="notes">{items}</ul>' if items else ""
