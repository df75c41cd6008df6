"""tsv-bench: evaluate a method on a suite; with --multirun, compare several."""

import os
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from tsv_bench.benchmark.alphas import check_patience
from tsv_bench.cli.config.checkpoint_files import check_cache
from tsv_bench.cli.config.method_yaml import described
from tsv_bench.cli.config.normalizer import check_normalizer
from tsv_bench.cli.config.tasks import (
    check_seed,
    check_suite,
    make_corruptions,
    make_tasks,
    without_unseen,
)
from tsv_bench.cli.launch import command
from tsv_bench.cli.own.backbone import check_backbone, check_backbones_name
from tsv_bench.cli.sweep.asked import check_metric, check_validate
from tsv_bench.cli.sweep.command import Made
from tsv_bench.cli.sweep.comparison import show_comparison
from tsv_bench.methods.knobs import check_switch
from tsv_bench.report.text.layouts import check_layout


def check(config: DictConfig) -> None:
    """Check the settings. Raises ValueError if one is wrong."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "tsv-bench is for one process and torchrun started several, each of which would do "
            "all of it. Fine-tune by torchrun with tsv-finetune, then start tsv-bench without."
        )
    check_backbone(config)
    check_backbones_name(config)
    method = described(config)
    check_patience(config.evaluation.patience)
    check_validate(config)
    check_seed(config)
    check_layout(config.layout)
    for key in ("overwrite", "plan"):
        check_switch(key, config[key])
    check_cache(config)
    check_suite(config)
    tasks = make_tasks(config.suite.tasks)
    method.check_num_tasks(without_unseen(tasks, config.unseen)[0])
    make_corruptions(config)
    check_normalizer(config, tasks)


def check_all(config: DictConfig) -> None:
    """Check the method's knobs. Raises ValueError if one is wrong."""
    from tsv_bench.benchmark.beyond.unseen import check_unseen
    from tsv_bench.cli.config.method import make_method

    method = make_method(config)
    merged, unseen = without_unseen(make_tasks(config.suite.tasks), config.unseen)
    method.check_tasks(merged)
    check_unseen(method, merged, unseen)


def check_here(config: DictConfig) -> str:
    """Check what depends on this machine: devices, files, a folder's checkpoints.

    Returns the fingerprint of the Run. Raises ValueError or OSError.
    """
    from tsv_bench.cli.work.bench import make_cell
    from tsv_bench.cli.work.machine import chosen_devices

    return make_cell(config, chosen_devices(config.device)).fingerprint


def show_plan(configs: Sequence[DictConfig], swept: Sequence[str]) -> None:
    """Print what these cells take. Raises ValueError or OSError if a setting is wrong."""
    from tsv_bench.cli.plan.text import show_plan

    show_plan(configs, swept)


def places(config: DictConfig) -> list[Path]:
    """Return the folders that the end of a sweep writes to."""
    return [Path(config.paths.report)]


@command(
    "bench",
    check,
    check_all=check_all,
    check_here=check_here,
    places=places,
    conclude=show_comparison,
    plan=show_plan,
    shared=["paths.runs"],
    check_metric=check_metric,
)
def main(config: DictConfig) -> Made:
    """Check the settings, then make one Run or find it finished."""
    check(config)
    if config.plan:
        show_plan([config], [""])
        return Made()

    from tsv_bench.cli.work.bench import bench

    return bench(config)


if __name__ == "__main__":
    main()
