"""Lists of what there is to choose: `tsv-bench methods`, and suites, tasks, backbones, ...

A line for each, from its yaml.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tsv_bench.cli.config.search_path import CONF, groups, options
from tsv_bench.cli.help.comments import summary
from tsv_bench.cli.help.page import plural
from tsv_bench.methods.needs import needs_of
from tsv_bench.wording.columns import align


def lists() -> dict[str, str]:
    """Return the words that ask for a list, each with its group."""
    return {plural(group): group for group in groups()}


def choices_page(group: str, own: Sequence[Path] = ()) -> str:
    """Return a line for each choice of a group; ``own``: the user's own folders."""
    describe, header = DESCRIBED.get(group, (_in_words, ("what it is",)))
    rows = [(group, *header)]
    for name in options(group, own):
        [path, *_] = [p for f in (CONF, *own) if (p := f / group / f"{name}.yaml").is_file()]
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows.append((name, *map(str, describe(content if isinstance(content, dict) else {}, path))))
    return align(rows, gap=2, num_left=len(rows[0]))


def _method(content: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    try:
        needs = needs_of({"name": path.stem, **content})
    except ValueError as error:  # told when it is used
        return content.get("label", ""), content.get("paper", ""), str(error)
    seen = "weights"
    if needs:
        images = needs.images
        if needs.share:
            images = "all" if needs.share == 1 else f"{100 * needs.share:g}% of the"
        labels = "with labels" if needs.labels else "without labels"
        seen = f"{images} {needs.split} images a task, {labels}"
    return content.get("label", ""), content.get("paper", ""), seen


def _suite(content: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    listed = [entry for entry in content.get("defaults", ()) if isinstance(entry, dict)]
    tasks = next((entry["/task@tasks"] for entry in listed if "/task@tasks" in entry), [])
    lines = [", ".join(tasks[start : start + 7]) for start in range(0, len(tasks), 7)]
    return str(len(tasks)), ",\n".join(lines)


# Where the images of our own sources are from.
OURS = {"tsv_bench.data.sources": "embedded", "tsv_bench.data.collected.sources": "packages"}


def _task(content: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    task = next((value for value in content.values() if isinstance(value, dict)), {})
    source = task.get("source") or {}
    sizes = task.get("sizes") or source.get("num_images") or {}
    images = " / ".join(str(sizes[split]) for split in ("train", "val", "test") if split in sizes)
    module = str(source.get("_target_", "")).rpartition(".")[0]
    where = source.get("repo") or source.get("folder") or OURS.get(module, "")
    return task.get("label", ""), str(len(task.get("class_names") or ()) or ""), images, where


def _backbone(content: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    load = content.get("load") or {}
    return content.get("label", ""), load.get("architecture", ""), load.get("weights", "")


def _in_words(content: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    return (summary(path),)


DESCRIBED = {
    "method": (_method, ("label", "paper", "sees")),
    "suite": (_suite, ("number", "tasks")),
    "task": (_task, ("label", "classes", "train / val / test", "from")),
    "backbone": (_backbone, ("label", "architecture", "weights")),
}
