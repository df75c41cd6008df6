"""Names of rows: "ties", or "ties:density=0.2" where a method has several rows."""

import json
from collections.abc import Mapping, Sequence

from tsv_bench.report.tables.row import as_yaml
from tsv_bench.report.tables.table import RowKey, Seeds
from tsv_bench.wording.spelling import nearest


def find_row(text: str, tables: Mapping[str, Mapping[RowKey, Seeds]]) -> dict[str, RowKey]:
    """Find the row that ``text`` names in each table: table's name -> row.

    Raises ValueError if no table has such a row, or one has several.
    """
    method, *knobs = text.split(":")
    having = {name: [key for key in keys if key[0] == method] for name, keys in tables.items()}
    if not any(having.values()):
        methods = sorted({key[0] for keys in tables.values() for key in keys})
        raise ValueError(
            f"no Run of the method {method!r}{nearest(method, methods)} "
            f"There are Runs of: {', '.join(methods)}."
        )
    there = ", ".join(dict.fromkeys(row for keys in having.values() for row in row_names(keys)))
    known = {name for keys in having.values() for key in keys for name in _knobs(key)}
    for knob in knobs:
        name = knob.partition("=")[0]
        if name not in known:
            raise ValueError(
                f"{method} has no knob {name!r}{nearest(name, sorted(known))} "
                f"Its rows are: {there}."
            )
        if not any(_fits(key, knob) for keys in having.values() for key in keys):
            values = {as_yaml(_knobs(k).get(name)) for keys in having.values() for k in keys}
            raise ValueError(
                f"no Run of {method} has {knob}; there is {name}={', '.join(sorted(values))}."
            )
    found: dict[str, RowKey] = {}
    for name, keys in having.items():
        fitting = [key for key in keys if all(_fits(key, knob) for knob in knobs)]
        if len(fitting) > 1:
            raise ValueError(
                f"{text!r} is {len(fitting)} rows of {name}; name one of: "
                f"{', '.join(row_names(fitting))}."
            )
        if fitting:
            found[name] = fitting[0]
    if not found:
        raise ValueError(f"no row is {text!r}; the rows of {method} are: {there}.")
    return found


def row_names(keys: Sequence[RowKey]) -> list[str]:
    """Return the names by which `find_row` tells these rows of one method apart."""
    knobs = [_knobs(key) for key in keys]
    names = dict.fromkeys(name for one in knobs for name in one)
    differing = [n for n in names if len({json.dumps(one.get(n)) for one in knobs}) > 1]
    return [
        ":".join([key[0], *(f"{name}={as_yaml(one.get(name))}" for name in differing)])
        for key, one in zip(keys, knobs, strict=True)
    ]


def _fits(key: RowKey, knob: str) -> bool:
    """Return whether a row's knob has this value; ``knob`` is "name=value".

    A knob that is newer than the row's Runs counts as null.
    """
    name, _, text = knob.partition("=")
    value = _knobs(key).get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(text) == value
        except ValueError:
            return False
    return text == as_yaml(value)


def _knobs(key: RowKey) -> dict[str, object]:
    return json.loads(key[1])
