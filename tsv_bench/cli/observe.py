"""tsv-observe: write statistics of images or texts through a fine-tuned network."""

from pathlib import Path

from omegaconf import DictConfig

from tsv_bench.cli.config.checkpoint_files import check_there
from tsv_bench.cli.config.overrides import as_typed
from tsv_bench.cli.config.tasks import make_tasks
from tsv_bench.cli.launch import command, plain
from tsv_bench.cli.own.backbone import check_backbone
from tsv_bench.methods.knobs import check_choice, check_switch, check_whole
from tsv_bench.methods.needs import CLASSES
from tsv_bench.task_vectors.kinds import check_kinds

EXAMPLE = "tsv-observe backbone=vit_b32 task=cars finetuned=cars.pt output=cars"


def check(config: DictConfig) -> list[str]:
    """Check the settings and return the kinds of statistics.

    Raises ValueError or OSError if a setting is wrong.
    """
    for key in ("finetuned", "output"):
        if not isinstance(config[key], str):
            raise ValueError(f"{key}={config[key]!r} is not a path. As in: {EXAMPLE}")
    check_switch("overwrite", config.overwrite)
    check_whole("seed", config.seed, "what draws images and classes", 0)
    found = plain(config)["kinds"]
    kinds = found if isinstance(found, list) else [found]
    check_kinds(kinds)
    check_there({"finetuned": config.finetuned})
    if config.texts is None:
        check_choice("split", config.split, ("train", "val"), "a split that a method may see")
        check_choice("classes", config.classes, CLASSES, "a way to take the classes of an image")
        check_whole("images", config.images, "the number of images", 1)
        check_backbone(config)
        if len(tasks := make_tasks(config.task)) > 1:
            raise ValueError(
                f"task={as_typed(list(tasks))} names {len(tasks)} tasks, and a network has images "
                f"of one. Each in a job of its own is --multirun task={','.join(tasks)}."
            )
    else:
        for key, lowest in (("sequences", 1), ("tokens", 2)):
            check_whole(key, config[key], f"the number of {key}", lowest)
        if not Path(str(config.texts)).is_file():
            raise FileNotFoundError(f"texts={config.texts}: there is no such file.")
    return kinds


@command("observe", check, writes="output")
def main(config: DictConfig) -> None:
    """Check the settings, then write a file for each kind."""
    kinds = check(config)

    from tsv_bench.cli.work.observe import observe

    observe(config, kinds)


if __name__ == "__main__":
    main()
