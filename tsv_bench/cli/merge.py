"""tsv-merge: merge checkpoint files."""

import logging
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig

from tsv_bench.cli.config.checkpoint_files import checkpoint_paths, make_cache
from tsv_bench.cli.config.method import make_method
from tsv_bench.cli.launch import command, plain, set_up_machine
from tsv_bench.cli.printing import show
from tsv_bench.cli.scoring import scoring_of
from tsv_bench.merging import merge_files
from tsv_bench.merging.weighting_table import render_weighting
from tsv_bench.methods.entrywise.lata_published import Weighting
from tsv_bench.methods.method import Method
from tsv_bench.task_vectors.statistics import KINDS

log = logging.getLogger(__name__)

FORMATS = (".png", ".svg")  # of the figure


@command("merge")
def main(config: DictConfig) -> None:
    """Merge the files that the configuration names; log where the result is."""
    device = set_up_machine(config)
    method = make_method(config, with_base=config.base is not None)
    figure = figure_path(config)
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
    scoring = scoring_of(config, method)
    statistics = statistics_paths(config, method, finetuned)
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
        statistics=statistics,
        base=config.base,
        scoring=scoring,
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


def statistics_paths(
    config: DictConfig, method: Method, finetuned: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Return kind -> task -> file of what the method needs.

    Raises ValueError that says which is missing and what writes it, and for one of no use.
    """
    needed = method.needs.statistics if method.needs else ()
    for kind in KINDS:
        if kind not in needed and config[kind] is not None:
            wants = f"it needs {', '.join(needed)}" if needed else "it sees weights alone"
            raise ValueError(f"{kind}= has no effect on method={method.name}: {wants}.")
    found = {}
    for kind in needed:
        task, path = next(iter(finetuned.items()))
        if config[kind] is None:
            raise ValueError(
                f"method={method.name} needs {kind}, {KINDS[kind]}, of every task. Write them, "
                f"with the backbone and the task of each, as in: tsv-observe backbone=mini "
                f"task=digits kinds=[{kind}] finetuned={path} output={task}. Then give "
                f"{kind}='{{{task}: {task}.{kind}.safetensors, ...}}'."
            )
        paths = plain(config[kind]) if isinstance(config[kind], DictConfig) else None
        if not paths or not all(isinstance(value, str) for value in paths.values()):
            raise ValueError(
                f"{kind}={config[kind]!r} does not name the tasks' files. As in: "
                f"{kind}='{{{task}: {task}.{kind}.safetensors}}'"
            )
        found[kind] = {str(name): value for name, value in paths.items()}
    return found


def figure_path(config: DictConfig) -> Path | None:
    """Return where the figure goes, if one is asked for and there is one to draw.

    Raises ValueError for a path that ends in no format that is written, or that is there already.
    """
    if config.figure is None or config.base is None:
        return None
    path = Path(str(config.figure))
    if not isinstance(config.figure, str) or path.suffix not in FORMATS:
        raise ValueError(
            f"figure={config.figure!r} is not a path that ends in {' or '.join(FORMATS)}."
        )
    if path.exists() and (path.is_dir() or not config.overwrite):
        raise ValueError(
            f"figure {path} is there already. Name another"
            + ("." if path.is_dir() else ", or replace it with overwrite=true.")
        )
    return path


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


if __name__ == "__main__":
    main()
