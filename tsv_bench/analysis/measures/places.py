"""Where in a network a layer stands, read from its name."""

from dataclasses import dataclass

ENDINGS = (".weight", "_weight")


@dataclass(frozen=True)
class Place:
    """``stack``.``depth``.``kind``: the kind of layer in a block of a stack of blocks.

    Outside of any stack the depth is None, the stack empty and the kind the name.
    """

    stack: str
    depth: int | None
    kind: str

    @property
    def block(self) -> str:
        """The block's name; of a layer outside of any, its own."""
        return self.kind if self.depth is None else f"{self.stack}.{self.depth}"


def place_of(name: str) -> Place:
    """visual.transformer.resblocks.3.attn.in_proj_weight: the fourth block, attn.in_proj.

    The first number of the name is the depth; others (of an expert, say) become a star, so that
    such layers are of one kind.
    """
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts[:-1]) if part.isdecimal()), None)
    if at is None:
        return Place("", None, name)
    kind = ".".join("*" if part.isdecimal() else part for part in parts[at + 1 :])
    return Place(".".join(parts[:at]), int(parts[at]), kind)
