"""tsv-fetch: bring what runs need from the hub, so that they work without a network."""

import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, get_method
from omegaconf import DictConfig

from tsv_bench import hub
from tsv_bench.cli import experiment
from tsv_bench.cli.launch import command, plain
from tsv_bench.files import check_room
from tsv_bench.models import clip_needs, load_clip

log = logging.getLogger(__name__)

# Which function tells what a backbone's loader takes from the hub; others take nothing.
NEEDS = {load_clip: clip_needs}


@command("fetch")
def main(config: DictConfig) -> None:
    if not isinstance(config.check, bool):
        raise ValueError(f"check={config.check!r} is neither true nor false.")
    needs = needs_of(config)
    offline = f"HF_HUB_OFFLINE=1 tsv-bench {selection()}"
    if not needs:
        print(f"Nothing to fetch: all of it lies in the package or in your folders.\n{offline}")
        return
    states, problems = listed(needs, check=config.check)
    print(render(states))
    if config.check:
        refuse_lacking(states)
    else:
        fetch_missing(states, problems)
    print(f"All of it is here. This works without a network now:\n{offline}")


def listed(needs: Sequence[hub.Need], check: bool) -> tuple[list[hub.State], dict[hub.Need, str]]:
    """The state of each need, and what keeps the hub from saying what some of them are."""
    if check:
        return [hub.state(need, check=True) for need in needs], {}
    states, problems = [], {}
    for need in needs:
        try:
            states.append(hub.look_up(need))
        except hub.NoNetwork as error:  # the same for all others
            print(render([hub.state(need) for need in needs]))
            raise without_network(needs, error) from error
        except OSError as error:
            states.append(hub.state(need))
            problems[need] = str(error)
    return states, problems


def fetch_missing(states: Sequence[hub.State], problems: dict[hub.Need, str]) -> None:
    """Fetch what can be; then one OSError with the problems of what cannot."""
    possible = [state for state in states if not state.here and state.need not in problems]
    if possible:
        check_room(hub.cache_folder(), sum(s.missing_bytes for s in possible), "HF_HOME=")
    for state in possible:
        try:
            log.info(f"{state.need}: {hub.fetch(state.need)}")
        except hub.NoNetwork as error:  # lost since the hub was asked
            raise without_network([s.need for s in states], error) from error
        except OSError as error:
            problems[state.need] = str(error)
    if problems:
        raise OSError("\n".join(problems.values()))


def without_network(needs: Sequence[hub.Need], error: hub.NoNetwork) -> hub.NoNetwork:
    """The error, with all that is still missing."""
    return hub.NoNetwork(f"{lacking([hub.state(need) for need in needs])}\n{error}")


def needs_of(config: DictConfig) -> list[hub.Need]:
    """What a run with this suite (or task), backbone and checkpoints takes from the hub."""
    nodes = config.suite.tasks if "suite" in config else config.task
    tasks = experiment.make_tasks(nodes)
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
        made = experiment.make_source(config, device="cpu")
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


def render(states: Sequence[hub.State]) -> str:
    """A table: what, repository, size, licence, state."""
    rows = [("what", "repository", "size", "licence", "state")]
    for s in states:
        rows.append((s.need.what, s.need.repo, hub.amount(s.num_bytes), s.licence or "?", str(s)))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    missing = sum(state.missing_bytes for state in states)
    known = "" if all(s.num_bytes is not None for s in states if not s.here) else "at least "
    return "\n".join([*lines, f"to fetch: {known}{hub.amount(missing)}"])


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


if __name__ == "__main__":
    main()
