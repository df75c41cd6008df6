"""The work of tsv-merge."""

import logging
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig

from tsv_bench.cli.config.checkpoint_files import make_cache
from tsv_bench.cli.config.method import make_method
from tsv_bench.cli.printing import show
from tsv_bench.cli.work.machine import set_up_machine
from tsv_bench.merging import merge_files
from tsv_bench.merging.scoring import ScoringCommand
from tsv_bench.merging.weighting_table import render_weighting
from tsv_bench.methods.entrywise.lata_published import Weighting
from tsv_bench.methods.method import Method
from tsv_bench.state_dicts.entries.choices import Choices

log = logging.getLogger(__name__)


def merge(
    config: DictConfig,
    finetuned: Mapping[str, str],
    statistics: Mapping[str, Mapping[str, str]],
    figure: Path | None,
) -> None:
    """Merge the files, log where the result is and write the figure.

    ``statistics``: kind -> task -> file.
    """
    device = set_up_machine(config).all_devices
    method = make_method(config, with_base=config.base is not None)
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
        rank=config.rank,
        overwrite=config.overwrite,
        device=device,
        factors=make_cache(config),
        statistics=statistics,
        base=config.base,
        choices=Choices(
            shared_only=config.shared_only,
            rest_from=config.rest_from,
            embeddings=config.embeddings,
        ),
        scoring=scoring_of(config),
        name=method.name,
        knobs=method.knobs,
    )
    if merged.stored:
        show(merged.stored)
    if merged.weighting is not None:
        show(render_weighting(merged.weighting))
        if figure is not None:
            draw(merged.weighting, figure)
    where = merged.outputs[0] if len(merged.outputs) == 1 else merged.outputs[0].parent
    log.info(
        f"{method.label} of {len(finetuned)} tasks -> {where} ({len(merged.outputs)} written, "
        f"{merged.num_bytes / 1e6:.1f} MB) in {merged.seconds:.1f} s, peak memory "
        f"{merged.peak_memory / 1e9:.2f} GB"
    )


def scoring_of(config: DictConfig) -> ScoringCommand | None:
    """Return the command of ``score``. Raises ValueError if it is none that can be run."""
    if config.score is None:
        return None
    return ScoringCommand(
        command=str(config.score), seconds=config.score_seconds, seed=config.score_seed
    )


def draw(weighting: Weighting, path: Path) -> None:
    """Write the figure of a weighting; log where it is, or why there is none."""
    from tsv_bench.analysis import weighting_figure  # here: a merge without figure starts sooner

    log.info(weighting_figure.save(weighting, path))


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
