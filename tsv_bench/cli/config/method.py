"""The method that a configuration describes, and what is wrong with one that describes none.

Apart from objects.py, so that tsv-merge need not import networks.
"""

import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from tsv_bench import methods
from tsv_bench.cli.config.search_path import options
from tsv_bench.escaping import check_line, check_name
from tsv_bench.methods.method import Choice, Method
from tsv_bench.methods.needs import KEYS, SHOWN, needs_of
from tsv_bench.spelling import nearest

REQUIRED = ("name", "label", "alphas", "serve")
CHOOSE = {"knob", "candidates", "default", "serve"}
# What a method is where base= names the model that the pretrained one was instruction-tuned from.
WITH_BASE = "with_base"
NOT_KNOBS = {*REQUIRED, "paper", "only_if", "choose", "num_tasks", WITH_BASE, *KEYS}


def make_method(config: DictConfig, *, with_base: bool = False) -> Method:
    """Return the method, with its knobs and candidates for alpha checked.

    ``with_base``: in the form that takes an instruction vector. Raises ValueError if the yaml is
    not a method's, has no such form, or does not fit its function.
    """
    settings = _settings(config.method, with_base)
    name, serve = settings["name"], settings["serve"]
    knobs = {key: value for key, value in settings.items() if key not in NOT_KNOBS}
    function = find_function(name, serve["_target_"])
    own = not function.__module__.startswith(methods.__name__)
    if own and name in options("method"):
        raise ValueError(
            f"the method of {serve['_target_']} calls itself {name}, as a packaged one does: give "
            f"it a name of its own, or their Runs are taken for each other."
        )
    needs = needs_of(settings)
    given = [*(needs.arguments if needs else ()), *(["instruction"] if with_base else [])]
    _check_signature(name, serve, function, given)
    method = Method(
        name=name,
        label=settings["label"],
        alphas=settings["alphas"],
        # Tables show what it sees as they show its knobs.
        knobs=knobs | {key: settings[key] for key in SHOWN if needs and key in settings},
        serve=instantiate(config.method[WITH_BASE].serve if with_base else config.method.serve),
        choice=_choice(config.method, knobs),
        num_tasks=settings.get("num_tasks"),
        code=_fingerprint(serve["_target_"], function) if own else None,
        needs=needs,
        instructed=with_base,
    )
    method.check()
    if odd := set(knobs) ^ set(method.serve.keywords):
        raise ValueError(
            f"the knob {min(odd)!r} of {name} does not reach its function, or comes from "
            f"nowhere: method.<knob> and method.serve.<knob> must name the same knobs."
        )
    return method


def _choice(node: DictConfig, knobs: Mapping[str, Any]) -> Choice | None:
    """Return the knob that is chosen on validation, as ``choose`` says, or None.

    Raises ValueError if ``choose`` is incomplete or names no knob.
    """
    if "choose" not in node:
        return None
    found = set(node.choose) - {"by"}
    if found != CHOOSE or node.choose.knob not in knobs:
        raise ValueError(
            f"choose in the yaml of {node.name} has {', '.join(sorted(map(str, found)))}; it needs "
            f"{', '.join(sorted(CHOOSE))}, and knob is one of: {', '.join(knobs) or 'none'}."
        )
    return Choice(
        knob=node.choose.knob,
        by=node.choose.get("by", "task"),
        candidates=list(node.choose.candidates),
        default=node.choose.default,
        serve=instantiate(node.choose.serve),
    )


def _settings(node: DictConfig, with_base: bool) -> dict[str, Any]:
    """Return a method's yaml as plain data, that of its form with a base over it if so asked.

    Raises ValueError if it lacks what every method has, or if its name or label may not be one.
    """
    name = node.get("name") or "the method"
    try:
        settings = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except InterpolationKeyError as error:
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


def _check_signature(
    name: str, serve: Mapping[str, Any], function: Callable, needs: Sequence[str] = ()
) -> None:
    """Check that the function takes task vectors, what it needs and the knobs that the yaml passes.

    Raises ValueError that names the first other argument.
    """
    parameters = list(inspect.signature(function).parameters.values())
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    takes = {p.name: p.default is p.empty for p in parameters[1:]}
    if odd := [argument for argument in needs if argument not in takes]:
        raise ValueError(
            f"the yaml of {name} needs {odd[0]!r}, an argument that {serve['_target_']} does not "
            f"take: it takes {', '.join(takes) or 'none'}."
        )
    takes = {name: required for name, required in takes.items() if name not in needs}
    given = {key for key in serve if not key.startswith("_")}
    if odd := sorted(given - set(takes)):
        raise ValueError(
            f"the yaml of {name} passes the knob {odd[0]!r} to {serve['_target_']}, which takes "
            f"{', '.join(takes) or 'none'}{nearest(odd[0], list(takes))}"
        )
    if missing := [knob for knob, required in takes.items() if required and knob not in given]:
        raise ValueError(
            f"{serve['_target_']} takes the knob {missing[0]!r}, which the yaml of {name} does not "
            f"pass on: it needs {missing[0]}: VALUE, and under serve {missing[0]}: "
            f"${{..{missing[0]}}}"
        )


def _fingerprint(target: str, function: Callable) -> dict[str, str]:
    """Return the name of a user's own function and the sha256 of its file.

    They are part of a Run's fingerprint: a Run from before the file was edited is another one.
    """
    source = inspect.getsourcefile(inspect.unwrap(function))
    content = Path(source).read_bytes() if source else b""
    return {"function": target, "sha256": hashlib.sha256(content).hexdigest()}
