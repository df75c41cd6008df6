"""Decompositions of matrices: they know neither layers nor tasks."""

from tsv_bench.linalg.polar import InverseRoot, polar_factor, polar_product
from tsv_bench.linalg.precision import at_least_float32, singular_zero
from tsv_bench.linalg.svd import truncated_svd

__all__ = [
    "InverseRoot",
    "at_least_float32",
    "polar_factor",
    "polar_product",
    "singular_zero",
    "truncated_svd",
]
