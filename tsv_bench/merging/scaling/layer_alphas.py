"""An alpha a layer: by patterns of names, or by depth in the network."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tsv_bench.task_vectors.matrices import matches
from tsv_bench.task_vectors.places import place_of, relative_depths


@dataclass(frozen=True, kw_only=True)
class LayerAlphas:
    """What scales the merged vector: one number, or one for each layer.

    ``patterns``: the first that fits a layer's name, or a part of it, says its alpha. ``by_depth``:
    alphas from the first to the last block of a stack, interpolated between. ``default``: alpha of
    the layers that no pattern fits, and of those outside of blocks.
    """

    default: float | int
    patterns: Mapping[str, float | int] | None = None
    by_depth: Sequence[float | int] = ()

    @property
    def recorded(self) -> Any:
        """What the metadata of an output say of it."""
        if not self.patterns and not self.by_depth:
            return self.default
        own = {"patterns": dict(self.patterns)} if self.patterns else {}
        depth = {"by_depth": list(self.by_depth)} if self.by_depth else {}
        return {"default": self.default, **own, **depth}

    def of(self, names: Iterable[str]) -> dict[str, float | int]:
        """Return each layer's alpha.

        Raises ValueError for a pattern that fits no layer or only those that an earlier one has,
        and for alphas by depth where there are no blocks.
        """
        names = list(names)
        alphas = dict.fromkeys(names, self.default)
        if self.by_depth:
            self._set_by_depth(alphas)
        unfit = dict.fromkeys(names)
        for pattern, alpha in (self.patterns or {}).items():
            found = [name for name in unfit if matches(name, [pattern])]
            if not found:
                taken = any(matches(name, [pattern]) for name in names)
                which = "that earlier ones leave" if taken else "of this model"
                raise ValueError(
                    f"alpha: the pattern {pattern!r} fits no layer {which}. The first that fits "
                    f"counts. There are {len(names)}, as {', '.join(map(repr, names[:3]))}."
                )
            for name in found:
                alphas[name] = alpha
                del unfit[name]
        return alphas

    def _set_by_depth(self, alphas: dict[str, float | int]) -> None:
        inside = [name for name in alphas if place_of(name).depth is not None]
        if not inside:
            raise ValueError(
                f"alpha_by_depth={list(self.by_depth)} is for networks of numbered blocks, and no "
                f"layer has a number in its name. There are {len(alphas)}, as "
                f"{', '.join(map(repr, list(alphas)[:3]))}. alpha='{{PATTERN: VALUE}}' reads names."
            )
        depths = relative_depths(alphas)
        for name in inside:
            alphas[name] = interpolated(self.by_depth, depths[name])


def interpolated(values: Sequence[float | int], place: float) -> float:
    """Return the value at ``place``, 0 the first and 1 the last, on lines between the values."""
    if len(values) == 1:
        return values[0]
    at = place * (len(values) - 1)
    index = min(int(at), len(values) - 2)
    low, high = list(pairwise(values))[index]
    return low + (high - low) * (at - index)
