"""The page: all Runs of a folder in one html file that needs no server, no network, no other file.

Its parts are the files beside this one. Runs travel as json; the browser makes the tables of them,
so that it can sort, filter, and compare any two Runs image by image.
"""

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tsv_bench.files import replace_atomically
from tsv_bench.report.page.packed_runs import pack_runs
from tsv_bench.report.page.sections import figure_sections, page_summary, sheet_sections
from tsv_bench.report.tables.row import Evaluated
from tsv_bench.report.tables.table import Table
from tsv_bench.report.text.sheet import Sheet

NAME = "report.html"
SCRIPTS = ("numbers.js", "elements.js", "runs.js", "detail.js", "compare.js", "page.js")
# Where a script's text could end or be misread: "</script>", "<!--", "]]>"; and two line ends
# of JavaScript that json allows inside a string.
UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def write_page(
    evaluated: Sequence[Evaluated], tables: Sequence[Table], sheets: Sequence[Sheet], folder: Path
) -> Path:
    """Write report.html; its path. ``tables`` and ``sheets`` are made of the ``evaluated``."""
    path = Path(folder) / NAME
    text = render_page(evaluated, tables, sheets)
    replace_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def render_page(
    evaluated: Sequence[Evaluated], tables: Sequence[Table], sheets: Sequence[Sheet]
) -> str:
    scripts = "\n".join(_read(name) for name in SCRIPTS)
    parts = {
        "styles": _read("page.css"),
        "summary": page_summary([run for run, _ in evaluated]),
        "tables": sheet_sections(sheets),
        "figures": figure_sections(tables),
        "runs": as_json(pack_runs(evaluated, tables)),
        "scripts": f'(function () {{\n"use strict";\n{scripts}\n}})();',
    }
    # In one go: what is put in is not looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("page.html"))


def as_json(content: Any) -> str:
    """Json that may stand inside a <script> element whatever its strings say."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).translate(UNSAFE)


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
