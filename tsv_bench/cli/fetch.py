"""tsv-fetch: fetch what runs need from the hub, so that they work without a network."""

from omegaconf import DictConfig

from tsv_bench.cli.config.tasks import make_tasks
from tsv_bench.cli.launch import command
from tsv_bench.cli.own.backbone import check_backbone
from tsv_bench.methods.knobs import check_switch


def check(config: DictConfig) -> None:
    """Check the settings. Raises ValueError if one is wrong."""
    check_switch("check", config.check)
    check_backbone(config)
    make_tasks(config.suite.tasks)


@command("fetch", check)
def main(config: DictConfig) -> None:
    """Check the settings, then fetch what is missing."""
    check(config)

    from tsv_bench.cli.work.fetch import fetch

    fetch(config)


if __name__ == "__main__":
    main()
