"""What the yaml of a task must say, and what is added to one whose images lie in a folder."""

import os
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tsv_bench.wording.spelling import nearest

TASK = "tsv_bench.data.Task"
IMAGE_FOLDER = "tsv_bench.data.image_folder.ImageFolder"
OF_FOLDER = ("folder", "class_names")


def completed(name: str, node: Any) -> DictConfig:
    """Return a task's node as Hydra builds it; ``source: {folder: pics}`` is all of a source.

    Raises ValueError if it is no mapping, or if it or its source does not say what it is.
    """
    if not isinstance(node, DictConfig):
        raise ValueError(
            f"a task's yaml holds the task under its name, and here {name!r} stands outside of it. "
            f"As in: birds: {{_target_: {TASK}, name: birds, source: {{folder: pics}}}}"
        )
    if "_target_" not in node:
        raise ValueError(
            f"the yaml of task {name!r} does not say what it is: it needs the line "
            f"_target_: {TASK} below {name}:"
        )
    source = node.get("source")
    if not isinstance(source, DictConfig):
        raise ValueError(
            f"the yaml of task {name!r} does not say where its images come from, and has source: "
            f"{source}. As in: source: {{folder: pics}}"
        )
    if node._target_ != TASK or "_target_" in source:
        return node
    if "folder" not in source:
        raise ValueError(
            f"the yaml of task {name!r} does not say where its images come from: source has "
            f"{', '.join(map(str, source)) or 'nothing'}. It needs folder: PATH, or a _target_ as "
            f"in conf/task/dtd.yaml."
        )
    if odd := [key for key in source if key not in OF_FOLDER]:
        raise ValueError(
            f"unknown key {odd[0]!r} in the source of task {name!r}{nearest(odd[0], OF_FOLDER)} "
            f"There are: {', '.join(OF_FOLDER)}."
        )
    if not isinstance(source.folder, str):
        raise ValueError(f"the source of task {name!r} has folder={source.folder!r}, no path.")
    plain = OmegaConf.to_container(node, resolve=True)
    place = {"folder": os.path.abspath(os.path.expanduser(source.folder))}
    given = {"class_names": plain.pop("class_names", None)}
    plain["source"] = {"_target_": IMAGE_FOLDER, **given, **plain["source"], **place}
    return OmegaConf.create(plain)
