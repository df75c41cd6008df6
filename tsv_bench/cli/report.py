"""tsv-report: tables and plots from the Runs in a folder."""

from pathlib import Path

from omegaconf import DictConfig

from tsv_bench.cli.launch import command
from tsv_bench.report import render_terminal, write_report
from tsv_bench.tables import read_tables


@command("report")
def main(config: DictConfig) -> None:
    tables = read_tables(Path(config.paths.runs))
    print(render_terminal(tables, layout=config.layout))
    for path in write_report(tables, Path(config.paths.report), config.layout):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
