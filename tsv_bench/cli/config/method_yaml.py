"""What a method's yaml says, and what is wrong with one that describes none.

Apart from method.py, which binds the function: this is checked before torch is imported.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from tsv_bench.cli.config.search_path import options
from tsv_bench.methods.knobs import check_alphas, check_num_tasks, is_number
from tsv_bench.methods.needs import KEYS, Needs, needs_of
from tsv_bench.wording.escaping import check_line, check_name
from tsv_bench.wording.spelling import nearest

PACKAGED = "tsv_bench."
REQUIRED = ("name", "label", "alphas", "serve")
# What a method is where base= names the model that the pretrained one was instruction-tuned from.
WITH_BASE = "with_base"
# What tsv-merge does without validation, with weights= and without pretrained=. No Run knows it.
OF_MERGING = ("merge_alpha", "task_weights", "without_pretrained")
NOT_KNOBS = {
    *REQUIRED, "paper", "only_if", "added", "choose", "num_tasks", WITH_BASE, *KEYS, *OF_MERGING,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Described:
    """A method as its yaml describes it, its function not looked at."""

    settings: dict[str, Any]  # the whole yaml, resolved
    needs: Needs | None  # what it receives beside task vectors

    @property
    def name(self) -> str:
        return self.settings["name"]

    @property
    def target(self) -> str:
        """The full name of its function."""
        return str(self.settings["serve"]["_target_"])

    @property
    def knobs(self) -> dict[str, Any]:
        return {key: value for key, value in self.settings.items() if key not in NOT_KNOBS}

    @property
    def recorded(self) -> dict[str, Any]:
        """The knobs that a Run records: not those that were added later, at what it was before.

        So a Run from before is found, and stands in one row with others.
        """
        added = self.settings.get("added", {})
        return {k: value for k, value in self.knobs.items() if k not in added or added[k] != value}

    @property
    def num_tasks(self) -> int | None:
        return self.settings.get("num_tasks")

    @property
    def without_pretrained(self) -> bool:
        """Whether it takes a mean of models, so that merging needs no pretrained one."""
        return self.settings.get("without_pretrained", False)

    def merge_alpha(self, num_tasks: int) -> float | None:
        """Return the alpha that is published for merges without validation, if the yaml says."""
        return self._by("merge_alpha", num_tasks)

    def task_weights(self, num_tasks: int) -> str | None:
        """Return how the method takes weights of tasks, "scale" or "relative"; None: not at all."""
        return self._by("task_weights", num_tasks)

    def _by(self, key: str, num_tasks: int) -> Any:
        """Return what the yaml says, if need be ``by`` a knob's value or the number of ``tasks``.

        That of the largest number that is not above ``num_tasks``, else of the smallest.
        """
        said = self.settings.get(key)
        if not isinstance(said, dict):
            return said
        values = {name: value for name, value in said.items() if name != "by"}
        if said["by"] != "tasks":
            return values.get(self.settings[said["by"]])
        return values[max((n for n in values if n <= num_tasks), default=min(values))]

    def check_knobs(self) -> None:
        """Raise ValueError unless the yaml passes on its knobs, and nothing else."""
        passed = {key for key in self.settings["serve"] if not key.startswith("_")}
        if odd := set(self.knobs) ^ passed:
            raise ValueError(
                f"the knob {min(odd)!r} of {self.name} does not reach its function, or comes from "
                f"nowhere: method.<knob> and method.serve.<knob> must name the same knobs."
            )

    def check_num_tasks(self, tasks: Mapping[str, Any]) -> None:
        """Raise ValueError unless there are as many tasks as the method is for."""
        if isinstance(self.num_tasks, int):
            check_num_tasks(self.name, self.num_tasks, tasks)


def described(config: DictConfig, *, with_base: bool = False) -> Described:
    """Return what the method's yaml says.

    ``with_base``: in the form that takes an instruction vector. Raises ValueError if the yaml is
    not a method's or has no such form, and for a user's own function that is not there.
    """
    if not isinstance(config.get("method"), DictConfig):
        raise ValueError(
            "the method's yaml holds no settings of a method: it begins with name:, and has no "
            "line # @package."
        )
    settings = _settings(config.method, with_base)
    found = Described(settings=settings, needs=needs_of(settings))
    check_alphas(settings["alphas"])
    _check_of_merging(settings)
    function = str(config.method.serve["_target_"]).rpartition(".")[2]
    own = not str(config.method.serve["_target_"]).startswith(PACKAGED)
    if not own and found.name in options("method") and found.name != function:
        raise ValueError(
            f"method.name={found.name} gives {function} another method's name, and does not choose "
            f"it: method={found.name} does."
        )
    if found.target.startswith(PACKAGED):
        found.check_knobs()
    else:  # of a user's own, the signature says more
        find_function(found.name, found.target)
    return found


def _settings(node: DictConfig, with_base: bool) -> dict[str, Any]:
    """Return a method's yaml as plain data, that of its form with a base over it if so asked.

    Raises ValueError if it lacks what every method has, or if its name or label may not be one.
    """
    name = node.get("name") or "the method"
    try:
        settings = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except InterpolationKeyError as error:
        if not str(error.full_key).startswith(("method.serve.", f"method.{WITH_BASE}.serve.")):
            raise  # what is typed, or the value of a knob, refers to nothing
        raise ValueError(
            f"the yaml of {name} passes on what it does not set: {error.full_key} is "
            f"{OmegaConf.to_container(node)['serve'].get(str(error.key))!r}."
        ) from error
    if with_base:
        own = settings.pop(WITH_BASE, None)
        if not isinstance(own, dict) or "serve" not in own:
            raise ValueError(
                f"base= has no effect on method={name}: it needs no model from before instruction "
                f"tuning. method=lata takes one."
            )
        settings |= own
    if missing := [key for key in REQUIRED if key not in settings]:
        raise ValueError(
            f"the yaml of {name} has no {missing[0]!r}; a method has {', '.join(REQUIRED)} and its "
            f"knobs."
        )
    check_name(settings["name"], "method.name")
    check_line(settings["label"], "method.label")
    serve = settings["serve"]
    if not isinstance(serve, dict) or "_target_" not in serve or serve.get("_partial_") is not True:
        raise ValueError(
            f"the yaml of {name} says under serve which function it is and that it is not to be "
            f"called yet: _target_: module.function and _partial_: true."
        )
    return settings


def _check_of_merging(settings: Mapping[str, Any]) -> None:
    """Raise ValueError unless what the yaml says of merging is what `Described._by` reads."""
    for key, fits, what in (
        ("merge_alpha", is_number, "a number"),
        ("task_weights", ("scale", "relative").__contains__, "scale or relative"),
    ):
        said = settings.get(key)
        values = dict(said) if isinstance(said, dict) else {"": said}
        by = values.pop("by", None if isinstance(said, dict) else "tasks")
        known = by == "tasks" or by in settings
        if said is not None and not (values and known and all(map(fits, values.values()))):
            raise ValueError(
                f"{key} in the yaml of {settings['name']} is {said!r}. It is {what}, or one for "
                f"each value of a knob, as in {{by: merge, mean: ..., sum: ...}}."
            )


def find_function(name: str, target: str) -> Callable:
    """Return the function that ``_target_`` names.

    Raises ValueError that says which part of the name does not exist.
    """
    module_name, _, function_name = str(target).rpartition(".")
    found = f"the method {name} is {target}"
    try:
        module = importlib.import_module(module_name) if module_name else None
    except ModuleNotFoundError as error:
        if "is not a package" in str(error):
            raise ValueError(f"{found}: {error}. It is module.function.") from error
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(
                f"{found}, and {module_name} imports {error.name}, which is not installed."
            ) from error
        module = None
    except Exception as error:  # importing a user's module may raise anything
        raise ValueError(
            f"{found}, and {module_name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if module is None:
        raise ValueError(
            f"{found}, and there is no module {module_name or target}: neither in the current "
            f"folder, {Path.cwd()}, nor installed. Start the command where "
            f"{(module_name or 'my_method').split('.')[0]}.py is, or set PYTHONPATH to that folder."
        )
    function = getattr(module, function_name, None)
    if not callable(function):
        there = [key for key, value in vars(module).items() if callable(value)]
        raise ValueError(
            f"{found}, and {module_name} has no function {function_name!r}"
            f"{nearest(function_name, there)}"
        )
    return function
