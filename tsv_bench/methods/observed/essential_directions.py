"""The essential directions of a task: those of a layer's outputs that its delta changes most."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.svd import eigh, leading_eigh, lower_gram, lower_product
from tsv_bench.methods.observed.observations import Observed

# Share of the largest variance up to which one counts as zero, in float64 statistics. Those in
# float32 are off by rounding of up to about a tenth of a unit in the last place.
SMALLEST = 1e-13
ROUNDING = 0.1


class Directions(NamedTuple):
    """The leading principal directions of x delta^T, of one task's inputs x. All in float64."""

    outputs: Float[Tensor, "m k"]  # p, orthonormal, the strongest first
    variances: Float[Tensor, " k"]  # of x delta^T along each, up to a factor
    inputs: Float[Tensor, "k n"]  # p^T delta
    size: float  # of the task: ||delta||, or what the released code takes for it


def essential_directions(observed: Observed, rank: int, as_released: bool) -> Directions | None:
    """Return the ``rank`` leading directions, fewer if there are no more; None of a zero delta.

    They are eigenvectors of delta g delta^T, where g = x^T x: the inputs are not needed. With
    ``as_released`` the size is || p^T delta || of all m directions that the released code has: if
    there are fewer inputs than outputs, unit vectors, one for each output from number ``count`` on,
    stand for those that x delta^T lacks.
    """
    delta, (m, n) = observed.delta, observed.delta.shape
    largest = float(delta.abs().max()) if delta.numel() else 0.0
    if largest == 0:
        return None
    # A power of two rounds nothing, and this one is a float32.
    unit = 2.0 ** -max(-126, min(126, math.frexp(largest)[1]))
    scaled = delta * unit
    small = observed.count is not None and observed.count < m and as_released
    wanted = min(m, n) if small and observed.count < n else rank
    found = (_of_wide if m <= n else _of_tall)(scaled, observed.gram, wanted)
    sizes = found.inputs if wanted > rank else scaled
    square = sizes.square().sum(dtype=torch.float64)
    if small:
        square += scaled[observed.count :].square().sum(dtype=torch.float64)
    return Directions(
        found.outputs[:, :rank],
        found.variances[:rank],
        found.inputs[:rank] / unit,
        float(square.sqrt()) / unit,
    )


def _of_wide(delta: Float[Tensor, "m n"], gram: Float[Tensor, "n n"], rank: int) -> Directions:
    """Return the directions by delta g delta^T, a matrix of the outputs."""
    wide = delta.double()
    narrow = torch.promote_types(delta.dtype, gram.dtype)
    # In float32 its random error is no larger than that of a g in float32.
    image = (gram.to(narrow) @ delta.mT.to(narrow)).double()
    values, vectors = _leading(lower_product(wide, image), rank, gram.dtype)
    return Directions(vectors, values, vectors.mT @ wide, 0.0)


def _of_tall(delta: Float[Tensor, "m n"], gram: Float[Tensor, "n n"], rank: int) -> Directions:
    """Return the directions by r^T delta^T delta r, a matrix of the inputs, where g = r r^T."""
    wide, root = delta.double(), _root(gram.double())
    squares = lower_gram(wide).tril_()
    squares += squares.tril(-1).mT
    values, vectors = _leading(lower_product(root.mT, squares @ root), rank, gram.dtype)
    mixing = root @ (vectors / values.sqrt())  # of inputs: delta @ mixing are the directions
    return Directions(wide @ mixing, values, mixing.mT @ squares, 0.0)


def _leading(
    symmetric: Float[Tensor, "n n"], rank: int, dtype: torch.dtype
) -> tuple[Float[Tensor, " k"], Float[Tensor, "n k"]]:
    """Return eigenvalues that are not zero, descending, at most ``rank``, and eigenvectors.

    Of ``symmetric`` only the lower triangle is read.
    """
    values, vectors = leading_eigh(symmetric, min(rank, len(symmetric)))
    zero = max(SMALLEST, ROUNDING * torch.finfo(dtype).eps)
    count = int((values > zero * values[:1]).sum())
    return values[:count], vectors[:, :count]


def _root(gram: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Return r with r r^T = gram."""
    factor, failed = torch.linalg.cholesky_ex(gram)
    if not failed:
        return factor
    values, vectors = eigh(gram)
    return vectors * values.clamp(min=0).sqrt()
