"""Keys of settings: one that the configuration lacks is answered with the nearest that it has."""

from collections.abc import Iterable, Iterator

from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import AnyNode, DictConfig, OmegaConf

from tsv_bench.cli.config.search_path import CONF
from tsv_bench.wording.spelling import nearest

MOST_NAMED = 6  # settings in a message


def has(config: DictConfig, key: str) -> bool:
    """Return whether a configuration has a key, if only for null."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return OmegaConf.is_dict(node) and name in node


def holds_nothing(override: Override, known: DictConfig) -> bool:
    """Return whether a key is set inside a setting that is null, and so has no keys yet."""
    if override.type is not OverrideType.CHANGE:
        return False
    parts = override.key_or_group.split(".")
    above = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    return any(has(known, key) and OmegaConf.select(known, key) is None for key in above)


def check_key(
    override: Override,
    known: DictConfig,
    where: str,
    taken: Iterable[str] = (),
    given: Iterable[str] = (),
) -> None:
    """Check that the configuration has the key, unless + adds it. Raises ValueError if not.

    ``taken``: the groups of the command, which are keys as well. ``given``: the settings that get
    a mapping on the same line.
    """
    key = override.key_or_group
    line = override.input_line
    if override.is_add() and has(known, key) and OmegaConf.select(known, key) is not None:
        raise ValueError(f"{line}: there is a {key} already. Set it without +: {line[1:]}")
    if override.is_add() or override.is_force_add():
        return
    if override.is_delete() and any(key.startswith(f"{place}.") for place in given):
        return
    value = None if override.is_delete() else override.value()
    if isinstance(value, dict) and None in value:
        raise ValueError(
            f"{override.input_line}: null is nothing, and no name. Choose another name for what is "
            f"called so."
        )
    node: object = known
    parts = key.split(".")
    for depth, part in enumerate(parts):
        names = [str(name) for name in node] if OmegaConf.is_dict(node) else []
        if depth and isinstance(node, AnyNode) and node._is_none():
            if not override.is_delete():
                return  # it gets its first key
            raise ValueError(f"{line}: {'.'.join(parts[:depth])} is null and has no keys.")
        if depth and not OmegaConf.is_config(node):
            raise ValueError(
                f"{override.input_line}: {'.'.join(parts[:depth])} is one value and has no keys."
            )
        if part not in names:
            candidates = names if depth else sorted({*names, *taken})
            said = unknown(part, ".".join(parts[:depth]), candidates, where)
            raise ValueError(said if depth else said + elsewhere(key, known) + of_others(part))
        node = node._get_node(part)
    if isinstance(value, dict) and OmegaConf.is_list(node):
        raise ValueError(f"{line}: {key} is a list, as in {key}=[a,b].")
    if isinstance(value, dict):
        check_names(key, value, node, where)
    elif OmegaConf.is_dict(node) and len(node):
        if not override.is_delete():
            if key in ("hydra.launcher", "hydra.sweeper"):
                raise ValueError(f"{line}: it is chosen by {line.replace('.', '/', 1)}.")
            names = [f"{key}.{name}" for name in node if not str(name).startswith("_")]
            raise ValueError(
                f"{override.input_line}: {key} holds settings, {', '.join(names[:MOST_NAMED])}. "
                f"Set one of them, as in {names[0]}=..."
            )


def check_names(key: str, value: dict, node: object, where: str) -> None:
    """Check a mapping for settings that are there already. Raises ValueError for an unknown name.

    What holds nothing yet takes any names.
    """
    if not OmegaConf.is_dict(node) or node._is_none():
        return
    names = list(map(str, node))
    for name, inside in value.items():
        if str(name) not in names:
            raise ValueError(unknown(str(name), key, names, where))
        if isinstance(inside, dict):
            check_names(f"{key}.{name}", inside, node._get_node(str(name)), where)


def unknown(name: str, key: str, names: Iterable[str], where: str) -> str:
    """Return what is said of a name that is none of those in ``key``, "" for the top."""
    inside = f" in {key}{where}" if key else ""
    return f"unknown key {name!r}{inside}{nearest(name, names)} There are: {', '.join(names)}."


def elsewhere(key: str, known: DictConfig) -> str:
    """Return a sentence on where a name that the top lacks stands further inside; "" if nowhere."""
    if key in ("launcher", "sweeper"):
        return f" A {key} is chosen by hydra/{key}=."
    if key in ("multirun", "help", "version"):
        return f" A flag has dashes: --{key}."
    name = key.rpartition(".")[2]
    inside = [place for place in places(known) if place.rpartition(".")[2] == name]
    return f" There is {' and '.join(inside[:MOST_NAMED])}." if inside else ""


def places(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield the keys of all settings, those of mappings after the mapping's own."""
    for name in node:
        if OmegaConf.is_missing(node, name) or str(name) in ("serve", "only_if", "hydra"):
            continue
        yield f"{prefix}{name}"
        if OmegaConf.is_dict(inside := node._get_node(name)) and not inside._is_none():
            yield from places(inside, f"{prefix}{name}.")


def of_others(key: str) -> str:
    """Return a sentence on the commands that have this setting; "" if there is none."""
    files = [path for path in sorted(CONF.glob("*.yaml")) if path.stem != "launch"]
    if key == "hydra":
        return ""
    having = [f"tsv-{f.stem}" for f in files if key in OmegaConf.load(f)]
    return f" {key}= is a setting of {' and '.join(having)}." if having else ""
