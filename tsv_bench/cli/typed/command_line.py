"""What of a command line Hydra would refuse in words of its own, or take for something else."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override

from tsv_bench.cli.config.search_path import CONF, groups, options
from tsv_bench.cli.help.choices import lists
from tsv_bench.cli.help.comments import groups as groups_of
from tsv_bench.wording.spelling import nearest

WITH_TASKS = ("suite", "task")  # groups with settings that may be left out
PLACES = ("suite.tasks", "tasks")  # where a group is chosen from by task@PLACE=


def check_flags(config_name: str, flags: Sequence[str], own: Sequence[Path] = ()) -> None:
    """Check all that is no setting. Raises ValueError for an unknown flag and for a bare word."""
    parser = get_args_parser()

    def refuse(message: str) -> None:
        known = [name for action in parser._actions for name in action.option_strings]
        wrong = message.rpartition("unrecognized arguments: ")[2].split(" ")[0]
        close = nearest(wrong, known) if wrong in flags else "."
        raise ValueError(f"{message}{close} tsv-{config_name} --help says what there is.")

    parser.error = refuse
    for word in parser.parse_args(list(flags)).overrides:
        raise ValueError(_bare(config_name, word, own))


def _bare(config_name: str, word: str, own: Sequence[Path]) -> str:
    """Return what is said of a word that is neither a flag nor a setting."""
    if word in lists():
        return f"{word} stands alone, as in tsv-{config_name} {word}: it lists what there is."
    said = f"{word!r} is no setting, which has the form key=value"
    for group in taken_groups(config_name):
        if word in options(group, own):
            return f"{said}; did you mean {group}={word}?"
    return f"{said}. tsv-{config_name} --help says what there is."


def check_choices(config_name: str, chosen: Iterable[Override], own: Sequence[Path] = ()) -> None:
    """Check that a command takes the groups that are chosen from, and one choice of each.

    Raises ValueError if not.
    """
    taken = taken_groups(config_name)
    for override in chosen:
        group, line = override.key_or_group, override.input_line
        if override.package is not None:
            if group == "task" and override.package in PLACES:
                if not override.is_sweep_override() and override.value() is None:
                    raise ValueError(f"{line} names no task.")
                continue
            raise ValueError(f"{line}: a {group} is chosen by {group}=.")
        if group not in taken:
            takes = f"its groups are {', '.join(taken)}" if taken else "it has no groups"
            raise ValueError(f"tsv-{config_name} takes no {group}=: {takes}.")
        if override.is_delete():
            raise ValueError(f"{line}: only tasks can be left out, as by ~suite.tasks.land.")
        if override.is_add():
            raise ValueError(f"{line}: there is a {group} already. Choose without +: {group}=.")
        swept = override.is_sweep_override()
        value = None if swept else override.value()
        if isinstance(value, list) and group != "task":
            texts = ",".join(map(str, value))
            raise ValueError(
                f"{line} chooses several at once. Each in a job of its own is --multirun "
                f"{group}={texts}."
            )
        if value is None and not swept and taken[group] != "null":
            raise ValueError(
                f"{line}: tsv-{config_name} does not go without, as in {group}={taken[group]}. "
                f"There are: {', '.join(options(group, own))}."
            )
        if group == "experiment" and swept:
            raise ValueError(f"{line}: an experiment is a sweep itself. Start one after another.")


def check_left_out(overrides: Iterable[Override]) -> None:
    """Raise ValueError if a setting is deleted that a command needs."""
    for override in overrides:
        top, _, inside = override.key_or_group.partition(".")
        needed = not inside or top in groups() and top not in WITH_TASKS
        if override.is_delete() and needed:
            raise ValueError(
                f"{override.input_line}: only tasks can be left out, as by ~suite.tasks.land. Give "
                f"{override.key_or_group}= another value."
            )


def check_single(overrides: Iterable[Override]) -> None:
    """Raise ValueError for several values of a key, unless an experiment may ask for a sweep."""
    if any(o.key_or_group in ("experiment", "hydra.mode") for o in overrides):
        return
    for override in overrides:
        if override.is_sweep_override():
            key, _, value = override.input_line.removeprefix("task@").partition("=")
            raise ValueError(
                f"{key}={value} has several values, and a command runs once with each of "
                f"them if --multirun is given. A list is {key}=[{value}], and a text with a comma "
                f"stands in quotes: {key}='\"{value}\"'."
            )


def taken_groups(config_name: str) -> dict[str, str]:
    """Return the groups of a command with their defaults."""
    found = groups_of(CONF / f"{config_name}.yaml")
    return {group.key: group.value for group in found if group.key in groups()}
