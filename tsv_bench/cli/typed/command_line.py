"""What of a command line Hydra would refuse in words of its own, or take for something else."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override

from tsv_bench.cli.config.search_path import CONF, groups, options
from tsv_bench.cli.help.choices import lists
from tsv_bench.cli.help.comments import groups as groups_of
from tsv_bench.cli.help.comments import settings
from tsv_bench.cli.typed.sweeps import check_values
from tsv_bench.wording.spelling import nearest

PLACES = ("suite.tasks", "tasks")  # where a group is chosen from by task@PLACE=


def check_flags(config_name: str, flags: Sequence[str], own: Sequence[Path] = ()) -> None:
    """Check all that is no setting. Raises ValueError for an unknown flag and for a bare word."""
    parser = get_args_parser()

    def refuse(message: str) -> None:
        known = [name for action in parser._actions for name in action.option_strings]
        wrong = message.rpartition("unrecognized arguments: ")[2].split(" ")[0]
        close = nearest(wrong, known) if wrong in flags else "."
        name, _, value = wrong.lstrip("-").replace("-", "_").partition("=")
        if name in {*taken_groups(config_name), *keys_of(config_name)}:
            close = f": a setting has no dashes before it, as in {name}={value or 'VALUE'}."
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
    if word in {*taken_groups(config_name), *keys_of(config_name)}:
        return f"{said}; did you mean {word}=VALUE?"
    return f"{said}. tsv-{config_name} --help says what there is."


def check_for_bench(overrides: Iterable[Override]) -> None:
    """Raise ValueError for what only the other commands take, with the one that does."""
    for override in overrides:
        if override.key_or_group == "task" and not override.package:
            raise ValueError(
                "tsv-bench takes a list of tasks: suite.tasks=[...], not task=. One task alone is "
                "fine-tuned by: tsv-finetune task=..."
            )
        if override.key_or_group == "base":
            raise ValueError(
                "tsv-bench takes no base=: the backbones of its suites have no instruction tuning. "
                "Language models are merged by: tsv-merge method=lata base=..."
            )


def check_choices(config_name: str, chosen: Iterable[Override], own: Sequence[Path] = ()) -> None:
    """Check that a command takes the groups that are chosen from, and one choice of each.

    Raises ValueError if not.
    """
    taken = taken_groups(config_name)
    for override in chosen:
        check_values(override, taken)
        group, line = override.key_or_group, override.input_line
        if override.package is not None:
            if group == "task" and override.package in PLACES:
                if override.package not in tasks_of(config_name):
                    shown = line.replace("task@", "", 1)
                    raise ValueError(f"{shown}: tsv-{config_name} takes no list of tasks there.")
                if not override.is_sweep_override() and override.value() is None:
                    where = (
                        ""
                        if override.package == "tasks"
                        else (": the suite has no tasks: name at least one in suite.tasks=[...]")
                    )
                    raise ValueError(f"{line} names no task{where}.")
                continue
            raise ValueError(f"{line}: a {group} is chosen by {group}=.")
        if group not in taken:
            takes = f"its groups are {', '.join(taken)}" if taken else "it has no groups"
            raise ValueError(f"tsv-{config_name} takes no {group}=: {takes}.")
        if override.is_delete():
            raise ValueError(f"{line}: only tasks can be left out, as by ~suite.tasks.land.")
        if override.is_add() or override.is_force_add():
            raise ValueError(f"{line}: there is a {group} already. Choose without +: {group}=.")
        swept = override.is_sweep_override()
        value = None if swept else override.value()
        if isinstance(value, dict):
            raise ValueError(
                f"{line}: a {group} is chosen by its name, and what it has is set beside it, as in "
                f"method=ties method.density=0.1."
            )
        if group == "experiment" and (swept or isinstance(value, list)):
            raise ValueError(f"{line}: an experiment is a sweep itself. Start one after another.")
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


def check_left_out(overrides: Sequence[Override]) -> None:
    """Raise ValueError if something is left out that a command needs: not a task, or as a task.

    What a mapping on the same line, or in a recipe, has given may be left out again.
    """
    given = {override.key_or_group for override in overrides if not override.is_delete()}
    for override in overrides:
        key = override.key_or_group
        parent = key.rpartition(".")[0]
        free = parent in ("suite.tasks", "task") or parent in given or key.startswith("hydra.")
        if override.is_delete() and (not free or "=" in override.input_line):
            raise ValueError(
                f"{override.input_line}: only tasks can be left out, as by ~suite.tasks.land. Give "
                f"{key or 'a key'}= another value."
            )


def check_single(overrides: Sequence[Override]) -> None:
    """Raise ValueError for several values of a key, unless an experiment may ask for a sweep."""
    if any(o.key_or_group in ("experiment", "hydra.mode") for o in overrides):
        return
    for override in overrides:
        if override.is_sweep_override():
            key, _, value = override.input_line.replace("task@", "", 1).partition("=")
            said = (
                f"{key}={value} has several values, and a command runs once with each of them if "
                f"--multirun is given."
            )
            if override.key_or_group == "task":
                said += f" A list is {key}=[{value}]."
            elif override.key_or_group not in groups() and override.is_choice_sweep():
                said += (
                    f" A list is {key}=[{value}], and a text with a comma stands in quotes: "
                    f"{key}='\"{value}\"'."
                )
            raise ValueError(said)


def without_null(config_name: str, texts: Sequence[str]) -> list[str]:
    """Return the texts without groups that are null where that is their default: Hydra takes none.

    What was chosen before goes, too.
    """
    none = {f"{group}=null" for group, default in taken_groups(config_name).items()
            if default == "null"}  # fmt: skip
    found: list[str] = []
    for text in texts:
        if text in none:
            found = [earlier for earlier in found if earlier.partition("=")[0] != text[:-5]]
        else:
            found.append(text)
    return found


def keys_of(config_name: str) -> list[str]:
    """Return the settings of a command, as paths.runs, without those of its groups."""
    return [setting.key for setting in settings(CONF / f"{config_name}.yaml")]


def tasks_of(config_name: str) -> tuple[str, ...]:
    """Return where a command takes a list of tasks."""
    if config_name == "pretrain":
        return ("tasks",)
    return ("suite.tasks",) if "suite" in taken_groups(config_name) else ()


def taken_groups(config_name: str) -> dict[str, str]:
    """Return the groups of a command with their defaults."""
    found = groups_of(CONF / f"{config_name}.yaml")
    return {group.key: group.value for group in found if group.key in groups()}
