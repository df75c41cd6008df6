"""The work of tsv-analyze."""

import logging
from collections.abc import Mapping
from dataclasses import fields

from omegaconf import DictConfig

from tsv_bench import analysis
from tsv_bench.analysis.measures import Settings
from tsv_bench.cli.config.checkpoint_files import make_cache
from tsv_bench.cli.launch import plain
from tsv_bench.cli.printing import show
from tsv_bench.cli.work.machine import set_up_machine
from tsv_bench.state_dicts.entries.choices import Choices

log = logging.getLogger(__name__)


def analyze(config: DictConfig, finetuned: Mapping[str, str]) -> None:
    """Measure the checkpoints, print blocks and log where the analysis is."""
    device = set_up_machine(config).all_devices
    settings = Settings(**{field.name: plain(config)[field.name] for field in fields(Settings)})
    analyzed = analysis.analyze(
        config.pretrained,
        finetuned,
        config.output,
        settings,
        figures=config.figures,
        overwrite=config.overwrite,
        device=device,
        factors=make_cache(config),
        choices=Choices(shared_only=config.shared_only, embeddings=config.embeddings),
    )
    show(analysis.render_blocks(analyzed.records))
    num_matrices = analyzed.records["overall"]["num_matrices"]
    log.info(
        f"{len(finetuned)} tasks, {num_matrices} matrices -> {analyzed.path} and "
        f"{len(analyzed.figures)} figures beside it, in {analyzed.seconds:.1f} s, peak memory "
        f"{analyzed.peak_memory / 1e9:.2f} GB"
    )
