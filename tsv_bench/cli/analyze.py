"""tsv-analyze: measure how much fine-tuned checkpoints interfere, layer by layer."""

from omegaconf import DictConfig

from tsv_bench.cli.config.checkpoint_files import check_cache, check_there, checkpoint_paths
from tsv_bench.cli.launch import command
from tsv_bench.methods.knobs import check_switch
from tsv_bench.methods.ranks import check_rank_fraction
from tsv_bench.process.extras import check_installed

EXAMPLE = (
    "tsv-analyze pretrained=base.safetensors finetuned='{cars: cars.pt, dtd: dtd.pt}' "
    "output=analysis"
)


def check(config: DictConfig) -> dict[str, str]:
    """Check the settings and return the path of each task's checkpoint.

    Raises ValueError or OSError if a setting is wrong.
    """
    check_rank_fraction(config.rank_fraction)
    for key in ("figures", "overwrite", "split_qkv"):
        check_switch(key, config[key])
    if config.figures:
        check_installed("bench", "tsv-analyze, unless figures=false,")
    finetuned = checkpoint_paths(config, EXAMPLE)
    check_there({"pretrained": config.pretrained, **finetuned})
    check_cache(config)
    return finetuned


@command("analyze", check, writes="output")
def main(config: DictConfig) -> None:
    """Check the settings, then measure the checkpoints."""
    finetuned = check(config)

    from tsv_bench.cli.work.analyze import analyze

    analyze(config, finetuned)


if __name__ == "__main__":
    main()
