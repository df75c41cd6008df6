"""The work of tsv-report."""

from pathlib import Path

from omegaconf import DictConfig

from tsv_bench.cli.launch import plain
from tsv_bench.cli.printing import columns, show
from tsv_bench.files import check_place
from tsv_bench.report.tables.table import build_tables, read_evaluated
from tsv_bench.report.tables.two_methods import compare
from tsv_bench.report.text.render import make_sheets, render_terminal
from tsv_bench.report.text.two_methods import comparison_terminal, write_comparison
from tsv_bench.report.write_report import write_report, writing

ROOM = 10_000_000  # bytes, for a report


def report(config: DictConfig) -> None:
    """Write tables and figures of the Runs, or the comparison of two; print them."""
    out_folder = Path(config.paths.report)
    check_place(out_folder, ROOM, "paths.report=")
    evaluated = read_evaluated(Path(config.paths.runs))
    if config.compare is not None:
        compared, refused = compare(evaluated, plain(config)["compare"])
        text = comparison_terminal(compared, refused, columns())
        with writing(out_folder):
            paths = write_comparison(compared, refused, out_folder)
    else:
        tables = build_tables(evaluated)
        text = render_terminal(tables, columns(), layout=config.layout)
        with writing(out_folder):
            paths = write_report(tables, out_folder, config.layout)
            if config.html:
                from tsv_bench.report.page import write_page

                sheets = make_sheets(tables, config.layout)
                paths.append(write_page(evaluated, tables, sheets, out_folder))
    show("\n".join([text, *(f"wrote {path}" for path in paths)]))
