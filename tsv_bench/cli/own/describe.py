"""The yaml of a task whose images lie in a folder, and what tsv-task prints of it."""

import shlex
from pathlib import Path

import yaml

from tsv_bench.cli.config.search_path import CONF
from tsv_bench.cli.own.task import TASK
from tsv_bench.cli.printing import show
from tsv_bench.data import Task
from tsv_bench.data.image_folder import ImageFolder
from tsv_bench.files import replace_text
from tsv_bench.models import load_mini
from tsv_bench.wording.columns import align

HEADER = ("folder", "in prompts", "train", "val", "test")
NUM_SHOWN = 40  # classes
BESIDE = "signs"  # an embedded task, to merge with


def describe(images: ImageFolder, name: str, path: Path) -> None:
    """Write the task's yaml to ``path``; print what was found and what to do next."""
    task = Task(name=name, source=images)
    commands, why = next_commands(task, path.parent.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, as_yaml(task, images, commands))
    text = f"{found(task, images)}\nWritten: {path}. Names and templates can be changed there."
    show("\n".join([text, *([why] if why else []), "Go on with:", *(f"  {c}" for c in commands)]))


def as_yaml(task: Task, images: ImageFolder, commands: list[str]) -> str:
    """Return the yaml of a task."""
    node = {
        "_target_": TASK,
        "name": task.name,
        "label": task.label,
        "class_names": dict(zip(images.classes, task.class_names, strict=True)),
        "templates": list(task.templates),
        "epochs": task.epochs,
        "source": {"folder": images.folder},
    }
    head = [
        f"# {task.label}: {len(images.classes)} classes, images of a folder. Made by tsv-task.",
        *(f"#   {command}" for command in commands),
        "# class_names: each class's folder, and what prompts call it. epochs: of fine-tuning.",
    ]
    text = yaml.safe_dump({task.name: node}, sort_keys=False, allow_unicode=True, width=1000)
    return "\n".join([*head, text])


def found(task: Task, images: ImageFolder) -> str:
    """Return a table of the classes in the order of their labels, with their images."""
    rows: list[tuple] = [HEADER]
    for folder, name, counts in zip(images.classes, task.class_names, images.counts, strict=True):
        rows.append((folder, name, *(str(counts[split]) for split in HEADER[2:])))
    total = {split: images.num_images(split) for split in HEADER[2:]}
    lines = [
        f"{task.name}: {len(images.classes)} classes, {sum(total.values()):,} images: "
        f"{', '.join(f'{count:,} {split}' for split, count in total.items())}",
        align(rows[: NUM_SHOWN + 1], gap=2, num_left=2),
    ]
    if len(rows) > NUM_SHOWN + 1:
        lines.append(f"and {len(rows) - NUM_SHOWN - 1} more")
    if images.left_out:
        left = len(images.left_out)
        lines.append(f"Left out: {left} file{'s' * (left > 1)}, first {images.left_out[0]}")
    return "\n".join(lines)


def next_commands(task: Task, config_dir: Path) -> tuple[list[str], str]:
    """Return commands that work with this task, and why these if not the usual ones.

    The embedded backbone is for words that it has seen; all others need one of CLIP's.
    """

    def line(command: str, tasks: str, *more: str) -> str:
        own = ["--config-dir", str(config_dir), f"suite.tasks=[{tasks}]"]
        return shlex.join([command, *own, *more])

    mini = yaml.safe_load((CONF / "backbone" / "mini.yaml").read_text(encoding="utf-8"))
    settings = {key: value for key, value in mini["load"].items() if key != "_target_"}
    backbone = load_mini(**{**settings, "name": mini["name"], "label": mini["label"]})
    try:
        backbone.encode_text([prompt for prompts in task.prompts for prompt in prompts])
    except ValueError as error:
        clip = "backbone=vit_b32"
        return [line(f"tsv-{c}", task.name, clip) for c in ("fetch", "bench")], str(error)
    return [line("tsv-bench", f"{task.name},{BESIDE}")], ""
