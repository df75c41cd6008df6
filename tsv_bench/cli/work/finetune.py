"""The work of tsv-finetune."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from tsv_bench.cli.config import objects
from tsv_bench.cli.config.needs import check_fetched
from tsv_bench.cli.config.tasks import make_tasks
from tsv_bench.cli.sweep.command import Made
from tsv_bench.cli.work.machine import one_device, set_up_machine
from tsv_bench.data import SPLITS
from tsv_bench.files import check_room
from tsv_bench.models.distributed import join_group, take_own_gpu

log = logging.getLogger(__name__)


def finetune(config: DictConfig) -> Made:
    """Make the checkpoint of each task, or find it; log its accuracies.

    Returns the files, and the mean accuracy on validation as the metric.
    """
    take_own_gpu()
    device = one_device(set_up_machine(config))
    group = join_group(device)
    tasks = make_tasks(config.task)
    check_fetched(config)
    backbone = objects.make_backbone(config)
    source = objects.make_source(config, device)
    objects.check_data(config, backbone, tasks, dict.fromkeys(tasks, SPLITS))
    if needed := source.needed(backbone, list(tasks.values())):
        check_room(Path(source.folder), needed)
    load = objects.make_loader(config, backbone)
    checkpoints = []
    for task in tasks.values():
        made = source.checkpoint(backbone, task, lambda split, task=task: load(task, split))
        checkpoints.append(made)
        if group.is_main:
            log.info(
                f"{task.label}: {100 * made.scores['val'].accuracy:.1f}% on val, "
                f"{100 * made.scores['test'].accuracy:.1f}% on test, {made.path}"
            )
    accuracies = [made.scores["val"].accuracy for made in checkpoints]
    return Made(files=[made.path for made in checkpoints], metric=sum(accuracies) / len(accuracies))
