"""tsv-task: describe a folder of a user's own images as a task, in a yaml of their own."""

import os
from pathlib import Path

from omegaconf import DictConfig

from tsv_bench.cli.config.search_path import options
from tsv_bench.cli.launch import command
from tsv_bench.data.image_folder import ImageFolder
from tsv_bench.methods.knobs import check_switch
from tsv_bench.wording.escaping import check_name

EXAMPLE = "tsv-task pics name=birds"


def check(config: DictConfig) -> None:
    """Check the settings. Raises ValueError if one is wrong."""
    if config.folder is None or config.name is None:
        lacking = "the folder" if config.folder is None else "name="
        raise ValueError(f"{lacking} is missing. As in: {EXAMPLE}")
    check_switch("overwrite", config.overwrite)
    name = str(config.name)
    check_name(name, "the name of a task")
    if name in options("task"):
        raise ValueError(f"there is a packaged task {name!r}: choose another name.")
    path = place(config)
    if path.exists() and not config.overwrite:
        raise ValueError(
            f"{path} is there already; overwrite=true replaces it, and what you changed in it."
        )


def place(config: DictConfig) -> Path:
    """Return where the yaml is, or will be."""
    return Path(config.config_dir) / "task" / f"{config.name}.yaml"


@command("task", check)
def main(config: DictConfig) -> None:
    """Check the settings and look at the folder, then write the yaml."""
    check(config)
    images = ImageFolder(folder=os.path.abspath(str(config.folder)))

    from tsv_bench.cli.own.describe import describe

    describe(images, str(config.name), place(config))


if __name__ == "__main__":
    main()
