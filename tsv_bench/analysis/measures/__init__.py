"""How task vectors interfere: https://arxiv.org/abs/2412.00081, measured on tensors."""

from tsv_bench.analysis.measures.layers import Layer, Matrix, Settings, chosen_layers, measure
from tsv_bench.analysis.measures.places import Place, place_of
from tsv_bench.analysis.measures.spectra import energy_shares

__all__ = [
    "Layer",
    "Matrix",
    "Place",
    "Settings",
    "chosen_layers",
    "energy_shares",
    "measure",
    "place_of",
]
