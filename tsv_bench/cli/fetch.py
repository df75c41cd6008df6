"""tsv-fetch: fetch what runs need from the hub, so that they work without a network."""

from omegaconf import DictConfig

from tsv_bench.cli.config.tasks import make_tasks
from tsv_bench.cli.launch import command
from tsv_bench.methods.knobs import check_switch


@command("fetch")
def main(config: DictConfig) -> None:
    """Check the settings, then fetch what is missing."""
    check_switch("check", config.check)
    make_tasks(config.suite.tasks)

    from tsv_bench.cli.work.fetch import fetch

    fetch(config)


if __name__ == "__main__":
    main()
