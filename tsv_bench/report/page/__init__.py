"""The page: all Runs of a folder in one html file that needs no server and no other file.

packed_runs.py packs the Runs as json, of which the scripts make tables in the browser: to sort, to
filter, and to compare two Runs image by image. sections.py renders the tables of means and the
figures, which need no script. page.html holds it all.
"""

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tsv_bench.files import replace_text
from tsv_bench.report.page.packed_runs import pack_runs
from tsv_bench.report.page.sections import figure_sections, page_summary, sheet_sections
from tsv_bench.report.tables.row import Evaluated
from tsv_bench.report.tables.table import Table
from tsv_bench.report.text.sheet import Sheet

NAME = "report.html"
# They become one function, in this order; the head of each says what it shares with the others.
SCRIPTS = ("numbers.js", "elements.js", "runs.js", "detail.js", "compare.js", "page.js")
# Characters that could end or alter a <script> element ("</script>", "<!--", "]]>"), and two that
# end a line in JavaScript but not in json.
UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def write_page(
    evaluated: Sequence[Evaluated], tables: Sequence[Table], sheets: Sequence[Sheet], folder: Path
) -> Path:
    """Write report.html; return its path.

    ``tables`` are built from ``evaluated``, and ``sheets`` from the tables.
    """
    path = Path(folder) / NAME
    text = render_page(evaluated, tables, sheets)
    replace_text(path, text)
    return path


def render_page(
    evaluated: Sequence[Evaluated], tables: Sequence[Table], sheets: Sequence[Sheet]
) -> str:
    """Return the page as html; arguments as for `write_page`."""
    scripts = "\n".join(_read(name) for name in SCRIPTS)
    parts = {
        "styles": _read("page.css"),
        "summary": page_summary([run for run, _ in evaluated]),
        "tables": sheet_sections(sheets),
        "figures": figure_sections(tables),
        "runs": as_json(pack_runs(evaluated, tables)),
        "scripts": f'(function () {{\n"use strict";\n{scripts}\n}})();',
    }
    # In one pass, so that braces inside a part are left alone.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("page.html"))


def as_json(content: Any) -> str:
    """Return json that is safe inside a <script> element, whatever its strings contain."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).translate(UNSAFE)


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
