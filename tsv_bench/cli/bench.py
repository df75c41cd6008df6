"""tsv-bench: evaluate a method on a suite; with --multirun, compare several."""

import os
from pathlib import Path

from omegaconf import DictConfig

from tsv_bench.benchmark.alphas import check_patience
from tsv_bench.cli.config.checkpoint_files import check_cache
from tsv_bench.cli.config.method_yaml import described
from tsv_bench.cli.config.normalizer import check_normalizer
from tsv_bench.cli.config.tasks import check_seed, make_corruptions, make_tasks, without_unseen
from tsv_bench.cli.launch import command
from tsv_bench.methods.knobs import check_switch
from tsv_bench.report.text.layouts import check_layout


@command("bench")
def main(config: DictConfig) -> Path:
    """Check the settings, then make one Run or find it finished; return its file."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "tsv-bench is for one process and torchrun started several, each of which would do "
            "all of it. Fine-tune by torchrun with tsv-finetune, then start tsv-bench without."
        )
    method = described(config)
    check_patience(config.evaluation.patience)
    check_seed(config)
    check_layout(config.layout)
    check_switch("overwrite", config.overwrite)
    check_cache(config)
    tasks = make_tasks(config.suite.tasks)
    method.check_num_tasks(without_unseen(tasks, config.unseen)[0])
    make_corruptions(config)
    check_normalizer(config, tasks)

    from tsv_bench.cli.work.bench import bench

    return bench(config)


if __name__ == "__main__":
    main()
