"""tsv-analyze: measure how much fine-tuned checkpoints interfere, layer by layer."""

import logging
from dataclasses import fields

from omegaconf import DictConfig

from tsv_bench import analysis
from tsv_bench.analysis.measures import Settings
from tsv_bench.cli.config.checkpoint_files import checkpoint_paths, make_cache
from tsv_bench.cli.launch import command, plain, set_up_machine
from tsv_bench.cli.printing import show

log = logging.getLogger(__name__)


@command("analyze")
def main(config: DictConfig) -> None:
    device = set_up_machine(config)
    settings = Settings(**{field.name: plain(config)[field.name] for field in fields(Settings)})
    for key in ("figures", "overwrite"):
        if not isinstance(config[key], bool):
            raise ValueError(f"{key}={config[key]!r} is neither true nor false.")
    finetuned = checkpoint_paths(
        config,
        "tsv-analyze pretrained=base.safetensors finetuned='{cars: cars.pt, dtd: dtd.pt}' "
        "output=analysis",
    )
    analyzed = analysis.analyze(
        config.pretrained,
        finetuned,
        config.output,
        settings,
        figures=config.figures,
        overwrite=config.overwrite,
        device=device,
        factors=make_cache(config),
    )
    show(analysis.render_blocks(analyzed.records))
    num_matrices = analyzed.records["overall"]["num_matrices"]
    log.info(
        f"{len(finetuned)} tasks, {num_matrices} matrices -> {analyzed.path} and "
        f"{len(analyzed.figures)} figures beside it, in {analyzed.seconds:.1f} s, peak memory "
        f"{analyzed.peak_memory / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    main()
