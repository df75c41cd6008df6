"""What a configured run needs from the hub, and refusing to start without it."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, get_method
from omegaconf import DictConfig

from tsv_bench import hub
from tsv_bench.cli.config import objects
from tsv_bench.cli.config.tasks import make_tasks
from tsv_bench.cli.launch import plain
from tsv_bench.models import clip_needs, load_clip

# Which function tells what a backbone's loader takes from the hub; others take nothing.
NEEDS = {load_clip: clip_needs}


def needs_of(config: DictConfig) -> list[hub.Need]:
    """What a run with this suite (or task), backbone and checkpoints takes from the hub."""
    nodes = config.suite.tasks if "suite" in config else config.task
    tasks = make_tasks(nodes)
    needs = [
        replace(need, what=f"data of {name}")
        for name, task in tasks.items()
        if hasattr(task.source, "needs")
        for need in task.source.needs()
    ]
    load = plain(config.backbone.load)
    if needs_of_loader := NEEDS.get(get_method(load.pop("_target_"))):
        needs += needs_of_loader(**load)
    source = config.get("checkpoints")
    # Others are not made here: they need settings of the run, and download nothing.
    if source is not None and hasattr(get_class(source._target_), "needs"):
        made = objects.make_source(config, device="cpu")
        for task in tasks.values():
            needs += made.needs(config.backbone.name, task)
    return list(dict.fromkeys(needs))


def check_fetched(config: DictConfig) -> None:
    """OSError that lists what a run lacks, and how to fetch it; for other commands to call first.

    No network, and no file is read: sizes only.
    """
    refuse_lacking([hub.state(need) for need in needs_of(config)])


def refuse_lacking(states: Sequence[hub.State]) -> None:
    if any(not state.here for state in states):
        raise OSError(f"{lacking(states)}\nFetch it with: tsv-fetch {selection()}")


def lacking(states: Sequence[hub.State]) -> str:
    """What is not here, a line each."""
    absent = [state for state in states if not state.here]
    lines = [
        f"{len(absent)} of the {len(states)} things that are needed from the hub are not here:"
    ]
    for state in absent:
        size = "size not known" if state.num_bytes is None else hub.amount(state.num_bytes)
        lines.append(f"  {state.need}, {size}: {state}")
    return "\n".join(lines)


def selection() -> str:
    """This command line's suite, backbone and checkpoints, as tsv-fetch takes them too."""
    settings = HydraConfig.get()
    return selected(settings.runtime.choices, settings.overrides.task)


def selected(choices: Mapping[str, str], overrides: Iterable[str]) -> str:
    """Hydra's choices of suite, backbone and checkpoints, and what was changed in them."""
    arguments = [
        f"{group}={choices[group]}"
        for group in ("suite", "backbone", "checkpoints")
        if choices.get(group)
    ]
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] in ("suite", "backbone", "checkpoints") and "." in key:
            arguments.append(override)
        elif key.startswith("task@suite.tasks"):
            arguments.append(override.replace("task@suite.tasks", "suite.tasks", 1))
        elif key == "task":  # tsv-finetune's
            arguments.append(f"suite.tasks=[{override.partition('=')[2]}]")
    return shlex.join(arguments)
