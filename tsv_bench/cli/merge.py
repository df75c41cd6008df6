"""tsv-merge: merge checkpoint files."""

import logging

from omegaconf import DictConfig

from tsv_bench import merging
from tsv_bench.cli.launch import command, plain, set_up_machine
from tsv_bench.cli.methods import make_method
from tsv_bench.factor_cache import FactorCache

log = logging.getLogger(__name__)


@command("merge")
def main(config: DictConfig) -> None:
    device = set_up_machine(config)
    method = make_method(config)
    for key in ("pretrained", "finetuned", "output"):
        if config[key] is None:
            raise ValueError(
                f"{key}= is missing. As in: tsv-merge method={method.name} "
                f"pretrained=base.safetensors finetuned='{{cars: cars.pt, dtd: dtd.pt}}' "
                f"output=merged.safetensors"
            )
    finetuned = plain(config.finetuned) if isinstance(config.finetuned, DictConfig) else None
    if not finetuned or not all(isinstance(path, str) for path in finetuned.values()):
        raise ValueError(
            f"finetuned={config.finetuned!r} does not name the tasks' checkpoints. As in: "
            f"finetuned='{{cars: cars.pt, dtd: dtd.pt}}'"
        )
    merged = merging.merge(
        method.serve,
        config.pretrained,
        {str(task): path for task, path in finetuned.items()},
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


def make_cache(config: DictConfig) -> FactorCache | None:
    """The factor cache. ValueError for a bound that is none."""
    if config.cache.folder is None:
        return None
    bound = config.cache.max_gb
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not bound > 0:
        raise ValueError(
            f"cache.max_gb={bound!r} is not a number above zero. cache.folder=null goes without."
        )
    return FactorCache(config.cache.folder, int(bound * 1e9))


if __name__ == "__main__":
    main()
