"""A check of the command line before Hydra reads it; a wrong name is answered with a right one."""

import re
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from tsv_bench.cli.config.keys import check_key, has, holds_nothing
from tsv_bench.cli.config.search_path import (
    CONF,
    check_yaml,
    groups,
    misplaced,
    options,
    overriding,
    own_folders,
)
from tsv_bench.cli.sweep.plugins import check_option
from tsv_bench.cli.typed.command_line import (
    check_choices,
    check_flags,
    check_for_bench,
    check_left_out,
    check_single,
    taken_groups,
    without_null,
)
from tsv_bench.cli.typed.quoting import check_keys_once, is_swept, quote_compared, readable
from tsv_bench.cli.typed.reworded import reworded
from tsv_bench.cli.typed.sweeps import check_values
from tsv_bench.wording.spelling import nearest


def checked(config_name: str, arguments: list[str]) -> list[str]:
    """Return the arguments as Hydra takes them.

    ``suite.tasks=[a,b]`` becomes Hydra's way to select tasks, and ``+suite.tasks=[c]`` its way to
    add some. A user's own folders (``--config-dir``, ``hydra.searchpath``) are searched, too.
    Nothing is checked if ``--config-path`` or ``--config-name`` replaces the packaged
    configuration. Raises ValueError if a group, option or key is misspelt.
    """
    flags = [a for a in arguments if a.startswith("-") or "=" not in a and not a.startswith("~")]
    texts = [a for a in arguments if a not in flags]
    replaced = ("--config-path", "-cp", "--config-name", "-cn")
    if any(flag.split("=")[0] in replaced for flag in flags):
        return arguments
    texts = [re.sub(r"^(\+?)\+?suite\.tasks=", r"\1task@suite.tasks=", text) for text in texts]
    if any(flag in ("--hydra-help", "--info", "-i") for flag in flags):
        return [*flags, *texts]
    texts = [re.sub(r"^\++(recipe=|hydra/|hydra\.searchpath=)", r"\1", text) for text in texts]
    texts = [quote_compared(text) if text.startswith("compare=[") else text for text in texts]
    texts = without_null(config_name, readable(texts, flags))
    overrides = OverridesParser.create().parse_overrides(texts)
    for text in texts:
        check_keys_once(text)
    check_flags(config_name, flags)
    own = own_folders(flags, overrides)
    chosen = [override for override in overrides if override.key_or_group in groups(own)]
    if config_name == "bench":
        check_for_bench(overrides)
    check_choices(config_name, chosen, own)
    for override in chosen:
        check_options(override, own)
    check_added(config_name, chosen, own)
    check_left_out([override for override in overrides if override not in chosen])
    of_hydra = [o for o in overrides if o.key_or_group.startswith(("hydra.", "hydra/"))]
    check_hydras([*named_hydras(of_hydra), *hydras_of_experiments(chosen, own)])
    keys = [o for o in overrides if o not in chosen and o not in of_hydra]
    if of_hydra:
        check_of_hydra(config_name, of_hydra, chosen, own)
    if config_name != "fetch" and not is_swept(flags):
        check_single(overrides)
    for override in keys:
        check_values(override, ())
    if own:  # whose defaults may name what is not there
        composed(config_name, combinations(chosen, set(), own)[0], own)
    first = check_keys(config_name, keys, chosen, own)
    if config_name == "fetch":  # which takes all of them at once
        return [*flags, *texts]
    lines = for_jobs(config_name, overrides, chosen, own)
    typed = [override.input_line for override in overrides]
    # Hydra adds the first key of what holds nothing if it is told to.
    return [*flags, *(f"++{t}" if t in first else e for t, e in zip(typed, lines, strict=True))]


def check_of_hydra(
    config_name: str, of_hydra: Sequence[Override], chosen: Iterable[Override], own: Sequence[Path]
) -> None:
    """Check Hydra's own settings. Raises ValueError for one that is unknown or has a wrong value.

    An experiment among ``chosen`` may choose another sweeper, which has other settings.
    """
    first = combinations(chosen, set(), own)[0]
    of_groups = [o.input_line for o in of_hydra if "/" in o.key_or_group]
    known = composed(config_name, [*first, *of_groups], own, with_hydra=True)
    for override in of_hydra:
        if "/" not in override.key_or_group:
            check_key(override, known, "")
    composed(config_name, [*first, *(override.input_line for override in of_hydra)], own)


def check_keys(
    config_name: str, keys: Sequence[Override], chosen: Sequence[Override], own: Sequence[Path]
) -> set[str]:
    """Check keys with every option of a sweep; return the lines that set a first key in null.

    Raises ValueError if one is unknown.
    """
    given = [o.key_or_group for o in keys if not o.is_delete() and isinstance(o.value(), dict)]
    parents, typed = {o.key_or_group.split(".")[0] for o in keys}, {o.input_line for o in chosen}
    first = set()
    for lines in combinations(chosen, parents, own) if keys else ():
        known = composed(config_name, lines, own)
        swept = [line.replace("task@", "", 1) for line in lines if line not in typed]
        where = "".join(f" with {line}" for line in swept)
        for override in keys:
            check_key(override, known, where, taken_groups(config_name), given)
            if holds_nothing(override, known):
                first.add(override.input_line)
    return first


def for_jobs(
    config_name: str,
    overrides: Iterable[Override],
    chosen: Sequence[Override],
    own: Sequence[Path] = (),
) -> list[str]:
    """Return the overrides of a sweep, with one value to sweep over where only jobs have the key.

    Hydra composes a configuration without what is swept first, and knows no ``method.density`` if
    that is of ``method=ties,dare_ties``.
    """
    of_all = [o.input_line for o in chosen if not o.is_sweep_override()]
    swept = {(o.package or o.key_or_group).split(".")[0] for o in chosen if o.is_sweep_override()}
    known = composed(config_name, of_all, own) if swept else None
    found = []
    for override in overrides:
        key, _, value = override.input_line.partition("=")
        plain = override.type is OverrideType.CHANGE and not override.is_sweep_override()
        if plain and key.split(".")[0] in swept and not has(known, key):
            found.append(f"{key}=choice({value or repr('')})")
        else:
            found.append(override.input_line)
    return found


def selections(override: Override, own: Sequence[Path] = ()) -> list[list[str]]:
    """Return the options that each value of an override chooses; a sweep has several values."""
    value = override.value()
    if isinstance(value, Glob):
        matching = value.filter(options(override.key_or_group, own))
        return [[name] for name in matching] or [[override.input_line.split("=", 1)[1]]]
    choices = list(override.sweep_iterator()) if override.is_sweep_override() else [value]
    lists = [choice if isinstance(choice, list) else [choice] for choice in choices]
    # An element of a sweep may still be a quoted string, whose text is an attribute.
    return [[str(getattr(n, "text", n)) for n in names if n is not None] for names in lists]


def check_options(override: Override, own: Sequence[Path] = ()) -> None:
    """Check that a group has the chosen options and that their files are YAML.

    Raises ValueError if not, or if a task is chosen twice.
    """
    group = override.key_or_group
    if override.is_delete():
        return
    known = options(group, own)
    for chosen in selections(override, own):
        if override.package == "suite.tasks":
            if not chosen:
                raise ValueError("the suite has no tasks: name at least one in suite.tasks=[...].")
            if twice := [name for name in chosen if chosen.count(name) > 1]:
                raise ValueError(f"the suite has the task {twice[0]!r} twice; name each task once.")
        for name in chosen:
            if name not in known:
                raise ValueError(
                    f"unknown {group} {name!r}{other_group(group, name) or nearest(name, known)}"
                    f"{misplaced(group, name, own)} There are: {', '.join(known)}"
                    + ("." if own else "; your own in a folder that --config-dir names.")
                )
            check_yaml(group, name, own)


def other_group(group: str, name: str) -> str:
    """Return the end of a sentence on where a name is chosen that is one of another group."""
    if group == "suite" and name in options("task"):
        return f"; {name} is a task: suite.tasks=[{name}]."
    if group == "task" and name in options("suite"):
        return f"; {name} is a suite: suite={name}."
    return ""


def named_hydras(overrides: Iterable[Override]) -> list[tuple[str, str]]:
    """Return the options of Hydra's own groups, as its launchers, that overrides name."""
    named = [o for o in overrides if o.key_or_group.startswith("hydra/") and not o.is_delete()]
    return [(o.key_or_group, o.input_line.partition("=")[2]) for o in named]


def hydras_of_experiments(chosen: Iterable[Override], own: Sequence[Path]) -> list[tuple[str, str]]:
    """Return the options of Hydra's own groups that chosen experiments name."""
    experiments = [o for o in chosen if o.key_or_group == "experiment" and not o.is_delete()]
    names = {n for override in experiments for some in selections(override, own) for n in some}
    paths = (folder / "experiment" / f"{name}.yaml" for folder in (CONF, *own) for name in names)
    contents = [yaml.safe_load(p.read_text(encoding="utf-8")) or {} for p in paths if p.exists()]
    return [
        (key.removeprefix("override /"), name)
        for content in contents
        for default in content.get("defaults", ())
        if isinstance(default, dict)
        for key, name in default.items()
        if key.startswith("override /hydra/")
    ]


def check_hydras(named: Iterable[tuple[str, str]]) -> None:
    """Check that Hydra has these launchers, sweepers, ... Raises ValueError if not."""
    for group, name in named:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            known = GlobalHydra.instance().config_loader().get_group_options(group)
        if not known:
            raise ValueError(f"Hydra has no group {group}: hydra/launcher and hydra/sweeper are.")
        check_option(group, name, known)


def check_added(config_name: str, chosen: list[Override], own: Sequence[Path] = ()) -> None:
    """Check the tasks that ``+suite.tasks`` adds.

    Raises ValueError if the suite has one of them already, or ``suite.tasks`` is set, too.
    """
    of_tasks = [override for override in chosen if override.package == "suite.tasks"]
    added = [override for override in of_tasks if override.is_add()]
    if not added:
        return
    if len(added) < len(of_tasks):  # Hydra would drop what is added
        raise ValueError(
            "suite.tasks=[...] and +suite.tasks=[...] do not go together; name all tasks in "
            "suite.tasks=[...]."
        )
    names = [name for override in added for names in selections(override, own) for name in names]
    for lines in combinations([o for o in chosen if o not in added], {"suite"}, own):
        tasks = [*composed(config_name, lines, own).suite.tasks, *names]
        if twice := [name for name in tasks if tasks.count(name) > 1]:
            raise ValueError(f"the suite has the task {twice[0]!r} twice; name each task once.")


def combinations(
    chosen: Iterable[Override], groups: set[str], own: Sequence[Path] = ()
) -> list[tuple[str, ...]]:
    """Return lists of overrides without sweeps: one for each option of a sweep over ``groups``.

    Of other sweeps only the first option is taken.
    """
    lines = []
    for override in chosen:
        if not override.is_sweep_override():
            lines.append([override.input_line])
            continue
        key = override.input_line.split("=", 1)[0]
        listed = override.package is not None
        values = [
            f"{key}=[{','.join(names)}]" if listed else f"{key}={names[0] if names else 'null'}"
            for names in selections(override, own)
        ]
        lines.append(values if override.key_or_group in groups else values[:1])
    return list(product(*lines))


def composed(
    config_name: str, lines: Iterable[str], own: Sequence[Path] = (), *, with_hydra: bool = False
) -> DictConfig:
    """Compose a command's configuration. Raises ValueError that says why if that fails."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return compose(config_name, [*overriding(own), *lines], return_hydra_config=with_hydra)
        except HydraException as error:
            parts = [str(part) for part in (error, error.__cause__) if part]
            said = ": ".join(part.split("\n    full_key:")[0] for part in parts)
            raise ValueError(reworded(said)) from error


def as_typed(value: object) -> str:
    """Return a value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)
