"""The method that a configuration describes: its function, bound to its knobs and checked.

Apart from objects.py, so that tsv-merge need not import networks.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from tsv_bench import methods
from tsv_bench.cli.config.method_yaml import WITH_BASE, described, find_function
from tsv_bench.cli.config.search_path import options
from tsv_bench.methods.method import Choice, Method
from tsv_bench.methods.needs import PRETRAINED, SHOWN, takes_pretrained
from tsv_bench.wording.spelling import nearest

CHOOSE = {"knob", "candidates", "default", "serve"}


def make_method(config: DictConfig, *, with_base: bool = False) -> Method:
    """Return the method, with its knobs and candidates for alpha checked.

    ``with_base``: in the form that takes an instruction vector. Raises ValueError if the yaml is
    not a method's, has no such form, or does not fit its function.
    """
    found = described(config, with_base=with_base)
    settings, knobs, needs = found.settings, found.knobs, found.needs
    name, serve = settings["name"], settings["serve"]
    function = find_function(name, serve["_target_"])
    own = not function.__module__.startswith(methods.__name__)
    if own and name in options("method"):
        raise ValueError(
            f"the method of {serve['_target_']} calls itself {name}, as a packaged one does: give "
            f"it a name of its own, or their Runs are taken for each other."
        )
    sees_weights = takes_pretrained(settings)
    given = [*(needs.arguments if needs else ()), *(["instruction"] if with_base else [])]
    given += [PRETRAINED] if sees_weights else []
    _check_signature(name, serve, function, given)
    method = Method(
        name=name,
        label=settings["label"],
        alphas=settings["alphas"],
        # Tables show what it sees as they show its knobs.
        knobs=found.recorded | {key: settings[key] for key in SHOWN if needs and key in settings},
        serve=instantiate(config.method[WITH_BASE].serve if with_base else config.method.serve),
        choice=_choice(config.method, knobs),
        num_tasks=settings.get("num_tasks"),
        code=_fingerprint(serve["_target_"], function) if own else None,
        needs=needs,
        instructed=with_base,
        sees_weights=sees_weights,
    )
    method.check()
    found.check_knobs()
    return method


def _choice(node: DictConfig, knobs: Mapping[str, Any]) -> Choice | None:
    """Return the knob that is chosen on validation, as ``choose`` says, or None.

    Raises ValueError if ``choose`` is incomplete or names no knob.
    """
    if "choose" not in node:
        return None
    if not isinstance(node.choose, DictConfig) or not isinstance(
        node.choose.get("candidates", []), Sequence
    ):
        raise ValueError(
            f"choose in the yaml of {node.name} has no list of candidates. As in: choose: {{knob: "
            f"beta, candidates: [0.5, 1.0], default: 1.0, serve: {{...}}}}"
        )
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
