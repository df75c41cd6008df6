"""Products of two matrices whose singular values are all set to their mean."""

import logging
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from tsv_bench.linalg.inverse_roots import InverseRootOfMatrix
from tsv_bench.linalg.polar import InverseRoot
from tsv_bench.linalg.svd import lower_gram

logger = logging.getLogger(__name__)

FEW = 1024  # columns up to which eigenvectors cost little
# Without eigenvectors: the condition number of a^T a that float64 bears, and the error left to its
# root. Together they are below the rounding of a result in float32.
LARGEST_CONDITION = 1e9
ERROR = 5e-8


class Whitening(NamedTuple):
    """(a^T a)^(-1/2) of a tall matrix, and the sum of its singular values."""

    root: InverseRoot | InverseRootOfMatrix
    nuclear_norm: float

    def times(self, x: Float[Tensor, "n columns"]) -> Float[Tensor, "n columns"]:
        """Return (a^T a)^(-1/2) @ x."""
        if isinstance(self.root, InverseRootOfMatrix):
            return self.root.times(x.mT).mT
        return self.root.times(x)


def flat_product(
    u: Float[Tensor, "m k"], v: Float[Tensor, "k n"], exact: bool = True
) -> Float[Tensor, "m n"]:
    """Return polar(u) @ polar(v) times the mean singular value of each. All are in float64.

    polar(a) is `polar_factor`: zero on directions that ``a`` does not span, whose zero singular
    values count in the mean. Not ``exact``: the roots of large Gram matrices come from rational
    functions instead of eigenvectors, to 1e-7.
    """
    of_v = whitening(v if v.shape[0] >= v.shape[1] else v.mT, exact)
    polar_v = of_v.times(v.mT).mT if v.shape[0] >= v.shape[1] else of_v.times(v)
    of_u = whitening(u if u.shape[0] >= u.shape[1] else u.mT, exact)
    if u.shape[0] >= u.shape[1]:
        product = u @ of_u.times(polar_v)
    else:
        product = of_u.times(u @ polar_v)
    level = (of_u.nuclear_norm / min(u.shape)) * (of_v.nuclear_norm / min(v.shape))
    return product * level


def whitening(a: Float[Tensor, "m n"], exact: bool) -> Whitening:
    """Return (a^T a)^(-1/2) of a matrix that is at least as tall as wide, in float64."""
    if not exact and a.shape[1] > FEW and not a.is_cuda:
        try:
            root = InverseRootOfMatrix(lower_gram(a), LARGEST_CONDITION, ERROR, overwrite=True)
            return Whitening(root, root.trace_of_root)
        except ArithmeticError as error:
            logger.info("inverse root of %s by eigenvectors: %s", a.shape[1], error)
    root = InverseRoot(a)
    return Whitening(root, root.nuclear_norm)
