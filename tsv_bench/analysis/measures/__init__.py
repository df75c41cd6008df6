"""Measures of how task vectors interfere: https://arxiv.org/abs/2412.00081. Tensors only.

`measure` streams the task vectors; of each matrix, layers.py takes the singular triplets that the
tasks keep, overlaps.py compares them, and spectra.py looks at all singular values.
"""

from tsv_bench.analysis.measures.layers import Layer, Matrix, Settings, chosen_layers, measure
from tsv_bench.analysis.measures.spectra import energy_shares

__all__ = [
    "Layer",
    "Matrix",
    "Settings",
    "chosen_layers",
    "energy_shares",
    "measure",
]
