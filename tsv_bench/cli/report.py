"""tsv-report: make tables and plots of the Runs in a folder, or compare two of its methods."""

from omegaconf import DictConfig

from tsv_bench.cli.launch import command
from tsv_bench.methods.knobs import check_switch
from tsv_bench.report.text.layouts import check_layout


def check(config: DictConfig) -> None:
    """Check the settings. Raises ValueError if one is wrong."""
    check_layout(config.layout)
    check_switch("html", config.html)


@command("report", check)
def main(config: DictConfig) -> None:
    """Check the settings, then write the report."""
    check(config)

    from tsv_bench.cli.work.report import report

    report(config)


if __name__ == "__main__":
    main()
