"""Checking a command line before Hydra reads it: the nearest right name for a wrong one."""

import difflib
import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

PACKAGE = Path(__file__).parents[1]
# In a wheel the configuration lies inside the package, in a checkout beside it.
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())


def groups() -> list[str]:
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def checked(config_name: str, arguments: list[str]) -> list[str]:
    """The arguments as Hydra wants them; ValueError for a misspelt group, option or key.

    ``suite.tasks=[a,b]`` becomes the selection of these tasks that Hydra knows, and
    ``+suite.tasks=[c]`` adds to the suite's. Folders added to Hydra's search path are not looked
    into: there Hydra's own message has to do.
    """
    flags = [a for a in arguments if a.startswith("-") or "=" not in a and not a.startswith("~")]
    texts = [a for a in arguments if a not in flags]
    if any(flag in ("--help", "-h", "--hydra-help", "--version") for flag in flags):
        return arguments
    if any(flag.split("=")[0] in ("--config-dir", "-cd", "--config-path", "-cp") for flag in flags):
        return arguments
    texts = [re.sub(r"^(\+?)\+?suite\.tasks=", r"\1task@suite.tasks=", text) for text in texts]
    texts = [quoted(text) if text.startswith("compare=[") else text for text in texts]
    try:
        overrides = OverridesParser.create().parse_overrides(texts)
    except OverrideParseException as error:
        raise ValueError(str(error).split("\nSee ")[0]) from error
    if any(
        o.key_or_group.startswith("hydra") and "searchpath" in o.key_or_group for o in overrides
    ):
        return [*flags, *texts]

    chosen = [override for override in overrides if is_group(override)]
    for override in chosen:
        if override.key_or_group == "task" and not override.package and config_name == "bench":
            raise ValueError(
                "tsv-bench takes a list of tasks: suite.tasks=[...], not task=. One task alone is "
                "fine-tuned by: tsv-finetune task=..."
            )
        check_options(override)
    check_added(config_name, chosen)
    keys = [o for o in overrides if o not in chosen and not o.key_or_group.startswith("hydra.")]
    parents = {override.key_or_group.split(".")[0] for override in keys}
    for lines in combinations(chosen, parents) if keys else ():
        known = composed(config_name, lines)
        swept = [line for line in lines if line not in texts]
        for override in keys:
            check_key(override, known, "".join(f" with {line}" for line in swept))
    return [*flags, *texts]


def quoted(text: str) -> str:
    """compare=[ties:density=0.1,ties] with quotes where Hydra's grammar has no = in a list."""
    inside = text.removeprefix("compare=[").removesuffix("]")
    if any(mark in inside for mark in "'\"[]"):
        return text
    return f"compare=[{','.join(repr(name.strip()) for name in inside.split(','))}]"


def is_group(override: Override) -> bool:
    return override.key_or_group in groups()


def selections(override: Override) -> list[list[str]]:
    """The options that each value of an override chooses: one value, or those of a sweep."""
    value = override.value()
    if isinstance(value, Glob):
        matching = value.filter(options(override.key_or_group))
        return [[name] for name in matching] or [[override.input_line.split("=", 1)[1]]]
    choices = list(override.sweep_iterator()) if override.is_sweep_override() else [value]
    lists = [choice if isinstance(choice, list) else [choice] for choice in choices]
    # getattr: an element of a sweep may still be a quoted string
    return [[str(getattr(n, "text", n)) for n in names if n is not None] for names in lists]


def check_options(override: Override) -> None:
    group = override.key_or_group
    if override.is_delete():
        return
    for chosen in selections(override):
        if override.package == "suite.tasks":
            if not chosen:
                raise ValueError("the suite has no tasks: name at least one in suite.tasks=[...].")
            if twice := [name for name in chosen if chosen.count(name) > 1]:
                raise ValueError(f"the suite has the task {twice[0]!r} twice; name each task once.")
        for name in chosen:
            if name not in options(group):
                raise ValueError(
                    f"unknown {group} {name!r}{nearest(name, options(group))} "
                    f"There are: {', '.join(options(group))}."
                )


def check_added(config_name: str, chosen: list[Override]) -> None:
    """ValueError when a task is added that the suite has, or beside a selection of tasks."""
    of_tasks = [override for override in chosen if override.package == "suite.tasks"]
    added = [override for override in of_tasks if override.is_add()]
    if not added:
        return
    if len(added) < len(of_tasks):  # Hydra would drop what is added
        raise ValueError(
            "suite.tasks=[...] and +suite.tasks=[...] do not go together; name all tasks in "
            "suite.tasks=[...]."
        )
    names = [name for override in added for names in selections(override) for name in names]
    for lines in combinations([o for o in chosen if o not in added], {"suite"}):
        tasks = [*composed(config_name, lines).suite.tasks, *names]
        if twice := [name for name in tasks if tasks.count(name) > 1]:
            raise ValueError(f"the suite has the task {twice[0]!r} twice; name each task once.")


def combinations(chosen: Iterable[Override], groups: set[str]) -> list[tuple[str, ...]]:
    """Overrides without sweeps: every option of a sweep over ``groups``, the first of others."""
    lines = []
    for override in chosen:
        if not override.is_sweep_override():
            lines.append([override.input_line])
            continue
        key = override.input_line.split("=", 1)[0]
        listed = override.package is not None
        values = [
            f"{key}=[{','.join(names)}]" if listed else f"{key}={names[0] if names else 'null'}"
            for names in selections(override)
        ]
        lines.append(values if override.key_or_group in groups else values[:1])
    return list(product(*lines))


def composed(config_name: str, lines: Iterable[str]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return compose(config_name, list(lines))
        except HydraException as error:
            raise ValueError(str(error)) from error


def check_key(override: Override, known: DictConfig, where: str) -> None:
    """ValueError unless the key is in the configuration, or is being added with +."""
    key = override.key_or_group
    if override.is_add() or override.is_force_add():
        return
    node: object = known
    parts = key.split(".")
    for depth, part in enumerate(parts):
        names = [str(name) for name in node] if OmegaConf.is_dict(node) else []
        if part not in names:
            inside = f" in {'.'.join(parts[:depth])}{where}" if depth else ""
            candidates = names if depth else sorted({*names, *groups()})
            raise ValueError(
                f"unknown key {part!r}{inside}{nearest(part, candidates)} "
                f"There are: {', '.join(candidates)}."
            )
        node = node._get_node(part)


def nearest(name: str, candidates: list[str]) -> str:
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "."
