"""A merging method as the commands choose it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tsv_bench.scaling import check_alphas


@dataclass(frozen=True, kw_only=True)
class Method:
    """A merging method as its yaml describes it."""

    name: str
    label: str
    alphas: list[float]  # candidates; one: alpha is fixed
    knobs: dict[str, Any]
    serve: Callable[[Mapping], Mapping]

    def check(self) -> None:
        """ValueError or TypeError for a knob or an alpha out of range, before any work."""
        check_alphas(self.alphas)
        self.serve({})
