"""A layer's place in a network, read from its name."""

from collections.abc import Iterable
from dataclasses import dataclass

ENDINGS = (".weight", "_weight")


@dataclass(frozen=True)
class Place:
    """The place ``stack``.``depth``.``kind``: a kind of layer in a block of a stack of blocks.

    Outside of any stack the depth is None, the stack is empty, and the kind is the whole name.
    """

    stack: str
    depth: int | None
    kind: str

    @property
    def block(self) -> str:
        """Name of the block; outside of any stack, of the layer itself."""
        return self.kind if self.depth is None else f"{self.stack}.{self.depth}"


def place_of(name: str) -> Place:
    """Read a layer's place from its name.

    In visual.transformer.resblocks.3.attn.in_proj_weight the depth is 3 and the kind attn.in_proj.
    The first number is the depth. Others, such as an expert's, become a star, so that these layers
    are of one kind.
    """
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts[:-1]) if part.isdecimal()), None)
    if at is None:
        return Place("", None, name)
    kind = ".".join("*" if part.isdecimal() else part for part in parts[at + 1 :])
    return Place(".".join(parts[:at]), int(parts[at]), kind)


def relative_depths(names: Iterable[str]) -> dict[str, float]:
    """Return how deep each layer lies in its stack of blocks: 0 in the first, 1 in the last.

    Layers outside of any stack and those of a stack with one block are at 0.
    """
    places = {name: place_of(name) for name in names}
    deepest: dict[str, int] = {}
    for place in places.values():
        if place.depth is not None:
            deepest[place.stack] = max(place.depth, deepest.get(place.stack, 0))
    return {
        name: (place.depth or 0) / max(deepest.get(place.stack, 0), 1)
        for name, place in places.items()
    }
