"""tsv-finetune: make fine-tuned checkpoints, in one process or in several of torchrun."""

from omegaconf import DictConfig

from tsv_bench.cli.config.tasks import check_seed, make_tasks
from tsv_bench.cli.launch import command


@command("finetune")
def main(config: DictConfig) -> None:
    """Check the settings, then make a checkpoint of each task."""
    check_seed(config)
    make_tasks(config.task)

    from tsv_bench.cli.work.finetune import finetune

    finetune(config)


if __name__ == "__main__":
    main()
