"""tsv-finetune: make one fine-tuned checkpoint, in one process or in those of torchrun."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from tsv_bench.cli import experiment
from tsv_bench.cli.fetch import check_fetched
from tsv_bench.cli.launch import command, set_up_machine
from tsv_bench.data import SPLITS
from tsv_bench.distributed import processes, take_own_gpu
from tsv_bench.files import check_room

log = logging.getLogger(__name__)


@command("finetune")
def main(config: DictConfig) -> None:
    take_own_gpu()
    device = set_up_machine(config)
    team = processes(device)
    tasks = experiment.make_tasks(config.task)
    check_fetched(config)
    backbone = experiment.make_backbone(config)
    source = experiment.make_source(config, device)
    experiment.check_data(config, backbone, tasks, dict.fromkeys(tasks, SPLITS))
    check_room(Path(source.folder), source.needed(backbone, list(tasks.values())))
    load = experiment.make_loader(config, backbone)
    for task in tasks.values():
        made = source.checkpoint(backbone, task, lambda split, task=task: load(task, split))
        if team.first:
            log.info(
                f"{task.label}: {100 * made.scores['val'].accuracy:.1f}% on val, "
                f"{100 * made.scores['test'].accuracy:.1f}% on test, {made.path}"
            )


if __name__ == "__main__":
    main()
