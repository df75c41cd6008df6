"""A method that is a knob of another one: by its name, with its own knobs."""

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from tsv_bench import methods


def method_by_name(
    knob: str, name: object, knobs_knob: str, knobs: object, **given: Any
) -> Callable[[Mapping], Mapping]:
    """Return the packaged method ``name`` with its knobs bound; those that are null keep defaults.

    ``knob`` and ``knobs_knob`` are what the two are called where the user sets them. ``given`` are
    no knobs, but what it may need of data: it is bound to the arguments that it takes. Raises
    ValueError for a name that is no method or of one that needs other data, for knobs that it does
    not have, and for what its own check of them refuses.
    """
    if name not in methods.__all__:
        raise ValueError(f"{knob}={name!r} is not a method: {', '.join(sorted(methods.__all__))}.")
    return bound(getattr(methods, name), f"{knob}={name}", knobs_knob, knobs, **given)


def bound(
    function: Callable, who: str, knobs_knob: str, knobs: object, **given: Any
) -> Callable[[Mapping], Mapping]:
    """Return a method's function with its knobs bound, as `method_by_name` does.

    ``who``: what a message calls it. Raises ValueError for knobs that it does not have, and for
    what its own check of them refuses.
    """
    takes = inspect.signature(function).parameters
    given = {key: value for key, value in given.items() if key in takes}
    arguments = _own_knobs(function, who, knobs_knob, knobs, given) | given
    function({}, **arguments)  # checks them
    return partial(function, **arguments)


def _own_knobs(
    function: Callable, who: str, knobs_knob: str, knobs: object, given: Collection[str]
) -> dict[str, Any]:
    if knobs is not None and not isinstance(knobs, Mapping):
        raise ValueError(
            f"{knobs_knob}={knobs!r} is not a mapping of knobs, as in {{density: 0.2}}."
        )
    bound = {key: value for key, value in (knobs or {}).items() if value is not None}
    takes = dict(list(inspect.signature(function).parameters.items())[1:])
    takes = {key: parameter for key, parameter in takes.items() if key not in given}
    if odd := [key for key in knobs or {} if key not in takes]:
        raise ValueError(
            f"{knobs_knob} has {odd[0]!r}, which {who} does not take: its knobs are "
            f"{', '.join(takes) or 'none'}."
        )
    lacking = [k for k, p in takes.items() if p.default is inspect.Parameter.empty]
    if missing := [key for key in lacking if key not in bound]:  # knobs have defaults
        raise ValueError(
            f"{who} needs {missing[0]}, which is data and no knob. Choose a method that sees task "
            f"vectors alone."
        )
    return bound
