"""tsv-merge: merge checkpoint files."""

import logging

from omegaconf import DictConfig

from tsv_bench import merging
from tsv_bench.cli.checkpoint_paths import checkpoint_paths
from tsv_bench.cli.factors import make_cache
from tsv_bench.cli.launch import command, set_up_machine
from tsv_bench.cli.methods import make_method

log = logging.getLogger(__name__)


@command("merge")
def main(config: DictConfig) -> None:
    device = set_up_machine(config)
    method = make_method(config)
    finetuned = checkpoint_paths(
        config,
        f"tsv-merge method={method.name} pretrained=base.safetensors finetuned='{{cars: cars.pt, "
        f"dtd: dtd.pt}}' output=merged.safetensors",
    )
    merged = merging.merge(
        method.serve,
        config.pretrained,
        finetuned,
        config.output,
        alpha=config.alpha,
        write=config.write,
        precision=config.precision,
        overwrite=config.overwrite,
        device=device,
        factors=make_cache(config),
        name=method.name,
        knobs=method.knobs,
    )
    if merged.stored:
        print(merging.render_stored(merged.stored))
    where = merged.outputs[0] if len(merged.outputs) == 1 else merged.outputs[0].parent
    log.info(
        f"{method.label} of {len(finetuned)} tasks -> {where} ({len(merged.outputs)} written, "
        f"{merged.num_bytes / 1e6:.1f} MB) in {merged.seconds:.1f} s, peak memory "
        f"{merged.peak_memory / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    main()
