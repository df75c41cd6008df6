"""What a command line selects, as arguments for another command."""

import shlex
from collections.abc import Iterable, Mapping

from hydra.core.hydra_config import HydraConfig

GROUPS = ("suite", "backbone", "checkpoints")  # which decide what is needed from the hub


def selection() -> str:
    """Return this command line's suite, backbone and checkpoints as arguments of tsv-fetch."""
    settings = HydraConfig.get()
    return selected(settings.runtime.choices, settings.overrides.task)


def selected(choices: Mapping[str, str], overrides: Iterable[str]) -> str:
    """Return Hydra's choices of suite, backbone and checkpoints, and the changes made to them."""
    arguments = [f"{group}={choices[group]}" for group in GROUPS if choices.get(group)]
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] in GROUPS and "." in key:
            arguments.append(override)
        elif key.startswith("task@suite.tasks"):
            arguments.append(override.replace("task@suite.tasks", "suite.tasks", 1))
        elif key == "task":  # of tsv-finetune
            arguments.append(f"suite.tasks=[{override.partition('=')[2]}]")
    return shlex.join(arguments)
