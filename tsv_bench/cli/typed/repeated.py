"""What of a command line is repeated in the commands that its messages suggest.

All that the other command takes as well: models, data, folders, a user's own yamls. Not what is set
anew, with all that belonged to it, and not what only says how this command goes.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser

from tsv_bench.cli.config.search_path import CONF
from tsv_bench.cli.help.comments import groups, settings
from tsv_bench.wording import suggested

LEFT = ("overwrite", "check", "plan", "progress", "layout", "tracker", "html", "compare")
SWEEP = "--multirun"


def repeating(arguments: Sequence[str]) -> AbstractContextManager[None]:
    """Repeat these arguments, as Hydra takes them, in what is suggested within the block."""
    given = list(arguments)

    def repeat(program: str, anew: Sequence[str], without: Sequence[str]) -> list[str]:
        return repeated(given, program, anew, without)

    return suggested.repeating(repeat)


def of_job(arguments: Sequence[str]) -> list[str]:
    """Return what stands for this job: the folders among ``arguments`` and its overrides."""
    overrides = HydraConfig.get().overrides
    return [*_folders(arguments), *overrides.hydra, *overrides.task]


def repeated(
    given: Sequence[str], program: str, anew: Sequence[str], without: Iterable[str] = ()
) -> list[str]:
    """Return the arguments of a suggested command, quoted for a shell.

    ``given``: those of the command that suggests it. ``anew``: what is set in it. ``without``: keys
    and groups that are not repeated.
    """
    command = program.removeprefix("tsv-")
    path = CONF / f"{command}.yaml"
    taken = {group.key for group in groups(path)} | {s.key.split(".")[0] for s in settings(path)}
    set_anew = {key_of(setting): setting for setting in anew}
    kept = []
    for override in _overrides(given):
        typed, override = override, translated(override, command, set_anew.get("task"))
        key = key_of(override)
        top = key.split(".")[0]
        # What was changed in a choice stays if it is chosen again.
        same = set_anew.get(top) in given or top == "task" and override != typed
        if key in set_anew or top in set_anew and not same or top in {*LEFT, *without}:
            continue
        if top in taken or key == "hydra.searchpath":
            kept.append(override)
    parsed = OverridesParser.create().parse_overrides(kept)
    swept = any(override.is_sweep_override() for override in parsed)
    ahead = _folders(given)
    if swept and command != "fetch" and SWEEP not in anew:  # tsv-fetch takes all at once
        ahead.append(SWEEP)
    return [shlex.quote(argument) for argument in (*ahead, *anew, *dict.fromkeys(kept))]


def translated(override: str, command: str, task: str | None) -> str:
    """Return an override as the user types it, and as the other command calls it.

    What a suite says of ``task`` is said of the one task of tsv-finetune, and the other way round.
    """
    mark = "+" if override.startswith("+") else ""
    text = override.lstrip("+").replace("task@suite.tasks=", "suite.tasks=", 1)
    if command == "finetune" and task and text.startswith("suite.tasks."):
        return mark + text.replace("suite.tasks.", "task.", 1)
    if command != "finetune" and text.startswith("task="):
        chosen = text.partition("=")[2]
        return "suite.tasks=" + (chosen if chosen.startswith("[") else f"[{chosen}]")
    if command != "finetune" and text.startswith("task."):
        return mark + "suite.tasks." + text.removeprefix("task.")
    return mark + text


def key_of(override: str) -> str:
    """Return the key that an override is about."""
    return override.partition("=")[0].lstrip("+~")


def _overrides(given: Sequence[str]) -> Iterator[str]:
    yield from (a for a in given if a.startswith("~") or "=" in a and not a.startswith("-"))


def _folders(given: Sequence[str]) -> list[str]:
    """Return the flag that names a folder of the user's own yamls, as it was given."""
    for place, argument in enumerate(given):
        if argument in ("--config-dir", "-cd"):
            return list(given[place : place + 2])
        if argument.startswith(("--config-dir=", "-cd=")):
            return [argument]
    return []
