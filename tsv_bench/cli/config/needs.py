"""What a configured run needs from the hub, and a refusal to start without it."""

from collections.abc import Sequence
from dataclasses import replace

from hydra.utils import get_class, get_method
from omegaconf import DictConfig

from tsv_bench import hub
from tsv_bench.cli.config import objects
from tsv_bench.cli.config.tasks import make_tasks
from tsv_bench.cli.launch import plain
from tsv_bench.models import clip_needs, load_clip, load_open_clip, open_clip_needs
from tsv_bench.wording import suggested

# For each loader of a backbone, the function that tells what it reads from the hub. Others read
# nothing.
NEEDS = {load_clip: clip_needs, load_open_clip: open_clip_needs}


def needs_of(config: DictConfig) -> list[hub.Need]:
    """Return what a run with this suite (or task), backbone and checkpoints reads from the hub."""
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
    if source is not None and "_target_" not in source:
        raise ValueError(
            "the yaml of checkpoints does not say what they are: it needs the line _target_: "
            "module.Source, as those of conf/checkpoints have."
        )
    # Other sources read nothing from the hub, and to make them takes settings of the run.
    if source is not None and hasattr(get_class(source._target_), "needs"):
        made = objects.make_source(config, device="cpu")
        for task in tasks.values():
            needs += made.needs(config.backbone.name, task)
    return list(dict.fromkeys(needs))


def check_fetched(config: DictConfig) -> None:
    """Check that all a run needs from the hub is here, by sizes alone and without a network.

    Raises OSError that lists what is missing and how to fetch it.
    """
    refuse_lacking([hub.state(need) for need in needs_of(config)])


def refuse_lacking(states: Sequence[hub.State]) -> None:
    """Raise OSError that lists what is not here and how to fetch it, if anything is not."""
    if any(not state.here for state in states):
        raise OSError(f"{lacking(states)}\nFetch it with: {suggested.command('tsv-fetch')}")


def lacking(states: Sequence[hub.State]) -> str:
    """Return a list of what is not here, a line for each."""
    absent = [state for state in states if not state.here]
    lines = [
        f"{len(absent)} of the {len(states)} things that are needed from the hub are not here:"
    ]
    for state in absent:
        size = "size not known" if state.num_bytes is None else hub.amount(state.num_bytes)
        lines.append(f"  {state.need}, {size}: {state}")
    return "\n".join(lines)
