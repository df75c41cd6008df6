"""tsv-fetch: fetch what runs need from the hub, so that they work without a network."""

from hydra import compose
from omegaconf import DictConfig

from tsv_bench.cli.config.tasks import make_tasks
from tsv_bench.cli.launch import command, expand_home
from tsv_bench.cli.own.backbone import check_backbone
from tsv_bench.cli.typed.repeated import repeating
from tsv_bench.cli.typed.several import asked
from tsv_bench.methods.knobs import check_switch
from tsv_bench.wording import suggested


def check(config: DictConfig) -> None:
    """Check the settings. Raises ValueError if one is wrong."""
    check_switch("check", config.check)
    check_backbone(config)
    make_tasks(config.suite.tasks)


@command("fetch", check)
def main(config: DictConfig) -> None:
    """Check the settings, then fetch what is missing, for all cells if several are asked for."""
    check(config)
    configs = [config]
    for cell in asked.get().cells[1:]:
        configs.append(compose("fetch", list(cell)))
        expand_home(configs[-1])
        check(configs[-1])

    from tsv_bench.cli.work.fetch import fetch

    with repeating(asked.get().arguments):
        offline = suggested.command("tsv-bench")
        fetch(configs, check=config.check, offline=offline)


if __name__ == "__main__":
    main()
