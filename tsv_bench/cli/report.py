"""tsv-report: tables and plots from the Runs in a folder."""

from pathlib import Path

from omegaconf import DictConfig

from tsv_bench.cli.launch import command
from tsv_bench.page import write_page
from tsv_bench.report import make_sheets, render_terminal, write_report
from tsv_bench.tables import build_tables, read_evaluated


@command("report")
def main(config: DictConfig) -> None:
    evaluated, folder = read_evaluated(Path(config.paths.runs)), Path(config.paths.report)
    tables = build_tables(evaluated)
    print(render_terminal(tables, layout=config.layout))
    written = write_report(tables, folder, config.layout)
    if config.html:
        sheets = make_sheets(tables, config.layout)
        written.append(write_page(evaluated, tables, sheets, folder))
    for path in written:
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
