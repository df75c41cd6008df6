"""A method by the name of its yaml, with knobs given in Python, for merges in memory."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from tsv_bench.cli.config.method import make_method
from tsv_bench.cli.config.method_yaml import Described, described
from tsv_bench.cli.config.search_path import CONF, options
from tsv_bench.methods.method import Method
from tsv_bench.wording.spelling import nearest


def named_method(name: str, knobs: Mapping[str, Any]) -> tuple[Method, Described]:
    """Return the packaged method ``name`` with ``knobs`` in place of its yaml's.

    Raises ValueError for a name or a knob that there is not, and for a knob out of range.
    """
    if name not in (known := options("method")):
        raise ValueError(
            f"unknown method {name!r}{nearest(str(name), known)} There are: {', '.join(known)}."
        )
    node = OmegaConf.load(CONF / "method" / f"{name}.yaml")
    config = OmegaConf.create({"method": node})
    own = described(config).knobs
    if odd := [knob for knob in knobs if knob not in own]:
        raise ValueError(
            f"{name} has no knob {odd[0]!r}{nearest(odd[0], list(own))} "
            f"It has: {', '.join(own) or 'none'}."
        )
    config.method.update(dict(knobs))
    return make_method(config), described(config)
