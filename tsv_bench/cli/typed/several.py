"""tsv-fetch for several runs at once: all cells of an experiment, or of a sweep of tsv-bench.

Hydra gets a command line without sweeps, of the first cell; the others are composed beside it.
"""

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from omegaconf import OmegaConf

from tsv_bench.cli.config.search_path import CONF, options, own_folders
from tsv_bench.cli.typed.command_line import taken_groups
from tsv_bench.cli.typed.quoting import SWEEPS
from tsv_bench.cli.typed.sweeps import check_enumerable

SINGLE = "hydra.mode=RUN"  # over what an experiment says


@dataclass(frozen=True)
class Asked:
    """A command line and the overrides of each cell that it stands for."""

    arguments: Sequence[str]
    cells: Sequence[Sequence[str]]


asked: ContextVar[Asked] = ContextVar("asked")


def first_of_several(config_name: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments of the first cell, and keep those of all in `asked`."""
    texts = [a for a in arguments if a.startswith("~") or "=" in a and not a.startswith("-")]
    flags = [a for a in arguments if a not in texts and a not in SWEEPS]
    own = own_folders(flags, OverridesParser.create().parse_overrides(texts))
    found = [(*cell, SINGLE) for cell in cells(config_name, texts, own)]
    asked.set(Asked(arguments, found))
    return [*flags, *found[0]]


def cells(config_name: str, texts: Sequence[str], own: Iterable[Path] = ()) -> list[list[str]]:
    """Return the overrides of each cell, in Hydra's order, without groups that a command lacks."""
    parser, params = OverridesParser.create(), {}
    for override in parser.parse_overrides(list(texts)):
        if override.key_or_group == "experiment" and override.value() is not None:
            params = sweep_of(str(override.value()), own)
    swept = parser.parse_overrides([*(f"{k}={v}" for k, v in params.items()), *texts])
    groups = taken_groups(config_name)
    kept = [o for o in swept if o.input_line in texts or o.key_or_group in groups]
    values = {}  # what is typed counts more
    for override in kept:
        key, lines = override.get_key_element(), [override.input_line]
        check_enumerable(override)
        if isinstance(override.value(), Glob):
            names = override.value().filter(options(override.key_or_group, own))
            lines = [f"{key}={name}" for name in names]
        elif override.is_sweep_override():
            lines = [f"{key}={value}" for value in override.sweep_string_iterator()]
        values[key] = lines
    return [list(cell) for cell in product(*values.values())]


def sweep_of(experiment: str, own: Iterable[Path] = ()) -> dict[str, str]:
    """Return what an experiment sweeps: key -> values, as on a command line."""
    for folder in (CONF, *own):
        if (path := folder / "experiment" / f"{experiment}.yaml").is_file():
            params = OmegaConf.select(OmegaConf.load(path), "hydra.sweeper.params") or {}
            return {str(key): str(value) for key, value in params.items()}
    return {}
