"""tsv-finetune: make fine-tuned checkpoints, in one process or in several of torchrun."""

from omegaconf import DictConfig

from tsv_bench.cli.config.tasks import check_seed, make_tasks
from tsv_bench.cli.launch import command
from tsv_bench.cli.own.backbone import check_backbone
from tsv_bench.cli.sweep.command import Made


def check(config: DictConfig) -> None:
    """Check the settings. Raises ValueError if one is wrong."""
    check_seed(config)
    check_backbone(config)
    make_tasks(config.task)


def check_all(config: DictConfig) -> None:
    """Check the settings of fine-tuning. Raises ValueError if one is wrong."""
    from tsv_bench.cli.config import objects

    objects.make_source(config, device="cpu")


def check_here(config: DictConfig) -> None:
    """Check what depends on this machine: devices, files. Raises ValueError or OSError."""
    from tsv_bench.cli.config.needs import check_fetched
    from tsv_bench.cli.work.machine import chosen_devices

    chosen_devices(config.device)
    check_fetched(config)


@command(
    "finetune",
    check,
    check_all=check_all,
    check_here=check_here,
    shared=["paths.checkpoints"],
    check_metric=lambda config: None,  # always there
)
def main(config: DictConfig) -> Made:
    """Check the settings, then make a checkpoint of each task."""
    check(config)

    from tsv_bench.cli.work.finetune import finetune

    return finetune(config)


if __name__ == "__main__":
    main()
