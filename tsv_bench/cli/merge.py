"""tsv-merge: merge checkpoint files."""

import logging

from omegaconf import DictConfig

from tsv_bench.cli.config.checkpoint_files import checkpoint_paths, make_cache
from tsv_bench.cli.config.method import make_method
from tsv_bench.cli.launch import command, set_up_machine
from tsv_bench.cli.printing import show
from tsv_bench.merging import merge_files
from tsv_bench.methods.method import Method

log = logging.getLogger(__name__)


@command("merge")
def main(config: DictConfig) -> None:
    """Merge the files that the configuration names; log where the result is."""
    device = set_up_machine(config)
    method = make_method(config)
    finetuned = checkpoint_paths(
        config,
        f"tsv-merge method={method.name} pretrained=base.safetensors finetuned='{{cars: cars.pt, "
        f"dtd: dtd.pt}}' output=merged.safetensors",
    )
    method.check_tasks(finetuned)
    alpha = chosen_alpha(config.alpha, method)
    if method.knob_is_open:
        choice = method.choice
        for_whom = "by task" if choice.by == "task" else "for the suite"
        log.info(
            f"{choice.knob}={choice.default:g} for every task: tsv-bench chooses it {for_whom} on "
            f"validation, here there is none. method.{choice.knob}= takes another."
        )
        method = method.by_default()
    merged = merge_files.merge(
        method.serve,
        config.pretrained,
        finetuned,
        config.output,
        alpha=alpha,
        write=config.write,
        precision=config.precision,
        overwrite=config.overwrite,
        device=device,
        factors=make_cache(config),
        name=method.name,
        knobs=method.knobs,
    )
    if merged.stored:
        show(merged.stored)
    where = merged.outputs[0] if len(merged.outputs) == 1 else merged.outputs[0].parent
    log.info(
        f"{method.label} of {len(finetuned)} tasks -> {where} ({len(merged.outputs)} written, "
        f"{merged.num_bytes / 1e6:.1f} MB) in {merged.seconds:.1f} s, peak memory "
        f"{merged.peak_memory / 1e9:.2f} GB"
    )


def chosen_alpha(alpha: float | None, method: Method) -> float:
    """Return the configured alpha, else the one that the method fixes, else 1."""
    if alpha is not None:
        return alpha
    if len(method.alphas) == 1:
        return method.alphas[0]
    log.info(
        f"alpha=1: tsv-bench chooses it on validation, from {min(method.alphas):.2g} to "
        f"{max(method.alphas):.2g}, here there is none. alpha= takes another."
    )
    return 1.0


if __name__ == "__main__":
    main()
