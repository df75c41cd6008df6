"""The work of tsv-merge."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tsv_bench.cli.config.checkpoint_files import make_cache
from tsv_bench.cli.config.method import make_method
from tsv_bench.cli.config.method_yaml import described
from tsv_bench.cli.config.scales import chosen_alpha, mapping
from tsv_bench.cli.launch import plain
from tsv_bench.cli.printing import show
from tsv_bench.cli.sweep.command import typed_command
from tsv_bench.cli.work.machine import set_up_machine
from tsv_bench.merging import merge_files
from tsv_bench.merging.as_matrices import AsMatrices
from tsv_bench.merging.scaling.layer_alphas import LayerAlphas
from tsv_bench.merging.scaling.task_weights import Weighted
from tsv_bench.merging.scoring import ScoringCommand
from tsv_bench.merging.told.card import Card
from tsv_bench.merging.told.dry_run import planned
from tsv_bench.merging.weighting_table import render_weighting
from tsv_bench.methods.entrywise.lata_published import Weighting
from tsv_bench.methods.method import Method
from tsv_bench.state_dicts.entries.choices import Choices

# Settings that a card repeats where they are not null.
REPEATED = (
    "base", "weights", "alpha", "alpha_by_depth", "dtype", "tokenizer_from", "rest_from",
    "embeddings", "inputs", "means", "fisher", "score",
)  # fmt: skip

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
    if config.pretrained is None:
        log.info(
            f"Without pretrained=, {next(iter(finetuned))} stands in for it: layout, type and what "
            f"is not merged are its own. The mean is that of all."
        )
    method = make_method(config, with_base=config.base is not None)
    found = described(config, with_base=config.base is not None)
    alpha = LayerAlphas(
        default=chosen_alpha(config, found, len(finetuned)),
        patterns=mapping(config.alpha),
        by_depth=tuple(config.alpha_by_depth or ()),
    )
    weights = mapping(config.weights)
    if method.knob_is_open:
        choice = method.choice
        for_whom = "by task" if choice.by == "task" else "for the suite"
        log.info(
            f"{choice.knob}={choice.default:g} for every task: tsv-bench chooses it {for_whom} on "
            f"validation, here there is none. method.{choice.knob}= takes another."
        )
        method = method.by_default()
    serve, more = method.serve, {}
    if config.stacked or config.kernels:
        serve = AsMatrices(serve, config.stacked, config.kernels)
        more = {key: True for key in ("stacked", "kernels") if config[key]}
    if weights is not None:
        serve = Weighted(serve, weights, found.task_weights(len(finetuned)))
        more |= {"weights": weights}
    common = {
        "alpha": alpha,
        "write": config.write,
        "precision": config.precision,
        "rank": config.rank,
        "overwrite": config.overwrite,
        "device": device,
        "dtype": config.dtype,
        "choices": choices_of(config),
    }
    if config.dry_run:
        check_dry_run(config, statistics, method)
        show(planned(serve, config.pretrained, finetuned, config.output, **common))
        return
    with method.named_in_errors():
        merged = merge_files.merge(
            serve,
            config.pretrained,
            finetuned,
            config.output,
            **common,
            factors=make_cache(config),
            statistics=statistics,
            base=config.base,
            scoring=scoring_of(config),
            sees_weights=method.sees_weights,
            name=method.name,
            knobs=method.knobs,
            more=more,
            tokenizer_from=config.tokenizer_from,
            card=card_of(config, finetuned, method.label, method.name, method.knobs),
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


def check_dry_run(
    config: DictConfig, statistics: Mapping[str, Mapping[str, str]], method: Method
) -> None:
    """Raise ValueError for what a dry run cannot tell: methods that see more than task vectors."""
    more = config.base is not None or config.score is not None or method.sees_weights
    if statistics or more:
        raise ValueError(
            "dry_run=true is for methods that see task vectors alone: without statistics, base=, "
            "score= and the pretrained weights."
        )


def choices_of(config: DictConfig) -> Choices:
    """Return what becomes of entries that not all checkpoints have."""
    return Choices(
        shared_only=config.shared_only,
        rest_from=config.rest_from,
        embeddings=config.embeddings,
    )


def card_of(
    config: DictConfig,
    finetuned: Mapping[str, str],
    label: str,
    name: str,
    knobs: Mapping[str, Any],
) -> Card:
    """Return what the model card of a merged folder says."""
    chosen = plain(config)
    settings = {key: chosen.get(key) for key in REPEATED}
    pretrained = {} if config.pretrained is None else {"pretrained": config.pretrained}
    recipe = {
        "method": {"name": name, **knobs},
        **pretrained,
        "finetuned": dict(finetuned),
        "output": config.output,
        **{key: value for key, value in settings.items() if value is not None},
        **{key: True for key in ("stacked", "kernels", "shared_only") if config[key]},
    }
    sources = {**pretrained, **finetuned}
    return Card(label=label, sources=sources, recipe=recipe, command=typed_command.get())


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
