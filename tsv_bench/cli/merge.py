"""tsv-merge: merge checkpoint files."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from tsv_bench.cli.config.checkpoint_files import (
    check_cache,
    check_there,
    checkpoint_paths,
)
from tsv_bench.cli.config.method_yaml import Described, described
from tsv_bench.cli.config.scales import check_scales
from tsv_bench.cli.launch import command, plain
from tsv_bench.cli.scoring import check_scoring
from tsv_bench.files.ahead import hashed_ahead
from tsv_bench.merging.arguments import check_dtype, check_mean
from tsv_bench.methods.knobs import check_switch
from tsv_bench.methods.needs import takes_pretrained
from tsv_bench.process.extras import check_installed
from tsv_bench.task_vectors.kinds import KINDS

FORMATS = (".png", ".svg")  # of the figure


class Checked(NamedTuple):
    """What the checks have found."""

    finetuned: dict[str, str]  # task -> path
    statistics: dict[str, dict[str, str]]  # kind -> task -> path
    figure: Path | None


def check(config: DictConfig) -> Checked:
    """Check the settings and return the files that they name.

    Raises ValueError or OSError if a setting is wrong.
    """
    method = described(config, with_base=config.base is not None)
    figure = figure_path(config)
    finetuned = checkpoint_paths(
        config,
        f"tsv-merge method={method.name} pretrained=base.safetensors finetuned='{{cars: cars.pt, "
        f"dtd: dtd.pt}}' output=merged.safetensors",
        without_pretrained=method.without_pretrained,
    )
    if config.pretrained is None:
        check_mean(
            finetuned, {key: config[key] for key in ("alpha", "alpha_by_depth")}, config.write
        )
    method.check_num_tasks(finetuned)
    check_scoring(config, method)
    statistics = statistics_paths(config, method, finetuned)
    check_scales(config, method, finetuned)
    for key in ("overwrite", "stacked", "kernels", "dry_run"):
        check_switch(key, config[key])
    check_dtype(config.dtype)
    check_shapes(config, method)
    if (task := config.tokenizer_from) is not None and task not in finetuned:
        raise ValueError(
            f"tokenizer_from={task} is none of the tasks, which are {', '.join(finetuned)}. null "
            f"takes the tokenizer of the pretrained model."
        )
    check_cache(config)
    others = {key: config[key] for key in ("pretrained", "base") if config[key] is not None}
    check_there({**others, **finetuned})
    for kind, paths in statistics.items():
        if set(paths) == set(finetuned):
            check_there({f"{kind} of {task}": path for task, path in paths.items()}, "statistics")
    return Checked(finetuned, statistics, figure)


def check_all(config: DictConfig) -> None:
    """Check the method's knobs. Raises ValueError if one is wrong."""
    from tsv_bench.cli.config.method import make_method

    make_method(config, with_base=config.base is not None)


def check_here(config: DictConfig) -> None:
    """Check the devices. Raises ValueError if there is none of the name."""
    from tsv_bench.cli.work.machine import chosen_devices

    chosen_devices(config.device)


@command("merge", check, check_all=check_all, check_here=check_here, writes="output")
def main(config: DictConfig) -> None:
    """Check the settings, then merge the files that they name."""
    checked = check(config)
    named = (config.pretrained, config.base, *checked.finetuned.values())
    checkpoints = [Path(path) for path in named if path is not None]
    with hashed_ahead(checkpoints):  # importing torch takes one core a second
        from tsv_bench.cli.work.merge import merge

    merge(config, *checked)


def check_shapes(config: DictConfig, method: Described) -> None:
    """Raise ValueError if stacked or kernels is true where a method decomposes no matrix."""
    for key in ("stacked", "kernels"):
        if not config[key]:
            continue
        sees_more = method.needs or config.base is not None or takes_pretrained(method.settings)
        if "exclude" not in method.knobs or sees_more:
            raise ValueError(
                f"{key}=true has no effect on method={method.name}, which takes no matrices apart "
                f"by their weights alone. Methods that do: tsv_merge, iso_c, knots, ..."
            )
        if config.write == "compressed":
            raise ValueError(
                f"write=compressed has no factors of experts and kernels: {key}=true goes with "
                f"write=model and write=vector."
            )


def statistics_paths(
    config: DictConfig, method: Described, finetuned: Mapping[str, str]
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
    check_installed("bench", "figure=")
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


if __name__ == "__main__":
    main()
