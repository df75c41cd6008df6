"""How much of a model a method merges by matrices, and how much entry by entry."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from tsv_bench.methods.served import unseen
from tsv_bench.task_vectors.lazy import LazyMapping, LazyVector
from tsv_bench.wording.columns import align

# Number of axes of a layer that is no matrix -> what its kind is called.
KINDS = {0: "scalars", 1: "vectors", 2: "2-D layers", 3: "3-D layers", 4: "4-D layers"}


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Layers and parameters, by what a merge does with them.

    ``by_matrices``: (layers, parameters). ``entrywise``: kind of layer -> the same. ``kept``: what
    has no delta and stays as it is pretrained.
    """

    by_matrices: tuple[int, int]
    entrywise: Mapping[str, tuple[int, int]]
    kept: tuple[int, int]

    @property
    def num_parameters(self) -> int:
        """The number of those that are merged."""
        return self.by_matrices[1] + sum(params for _, params in self.entrywise.values())

    def line(self) -> str:
        """Return what a run says of it, or "" if nothing is merged by matrices, or all is."""
        total, found = self.num_parameters, self.by_matrices[1]
        if not found or not self.entrywise:
            return ""
        largest = sorted(self.entrywise.items(), key=lambda item: -item[1][1])
        rest = ", ".join(f"{_share(params, total)} {kind}" for kind, (_, params) in largest)
        return (
            f"{_share(found, total)} of {total:,} parameters are merged by matrices, "
            f"{_share(total - found, total)} entry by entry: {rest}."
        )

    def table(self) -> str:
        """Return a row for each kind of layer: what is done, layers, parameters, share."""
        rows = [("what is done", "layers", "parameters", "share")]
        total = self.num_parameters + self.kept[1]
        ways = {"by matrices": self.by_matrices}
        ways |= {f"entry by entry: {kind}": own for kind, own in self.entrywise.items()}
        ways |= {"kept as pretrained": self.kept}
        for way, (layers, params) in ways.items():
            if layers:
                rows.append((way, f"{layers:,}", f"{params:,}", _share(params, total)))
        return align(rows, gap=2)


def extent_of(
    serve: Callable[[Mapping], Mapping], base: LazyMapping, vectors: Mapping[str, LazyMapping]
) -> Extent:
    """Return what a method does with each layer, found by tiny layers of these names.

    No checkpoint is read. What serves no lazy vector counts as entry by entry.
    """
    like = next(iter(vectors.values()))
    tiny = {name: _tiny(like.shape(name)) for name in like}
    with unseen():
        vector = next(iter(serve({task: dict(tiny) for task in vectors}).values()))
        by_matrices = {name for name in tiny if not _is_entrywise(vector, name)}
    layers: Counter[str] = Counter()
    params: Counter[str] = Counter()
    for name in like:
        shape = like.shape(name)
        kind = "matrices" if name in by_matrices else KINDS.get(len(shape), "other layers")
        layers[kind] += 1
        params[kind] += shape.numel()
    kept = [name for name in base if name not in tiny]
    return Extent(
        by_matrices=(layers.pop("matrices", 0), params.pop("matrices", 0)),
        entrywise={kind: (layers[kind], params[kind]) for kind in sorted(layers)},
        kept=(len(kept), sum(base.shape(name).numel() for name in kept)),
    )


def _tiny(shape: torch.Size) -> torch.Tensor:
    """Return a layer of as many axes, none longer than 2, whose matrices have full rank."""
    sides = [min(side, 2) for side in shape]
    if len(sides) < 2:
        return torch.ones(sides)
    return torch.eye(2)[: sides[-2], : sides[-1]].expand(sides)


def _is_entrywise(vector: Mapping, name: str) -> bool:
    if not isinstance(vector, LazyVector):
        return True
    return all(part.entrywise for part in vector.parts(name))


def _share(part: int, whole: int) -> str:
    return f"{part / max(whole, 1):.1%}"
