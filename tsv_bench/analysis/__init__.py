"""How checkpoints interfere: what tsv-analyze does.

checkpoint files -> task vectors -> measures/ (one layer at a time) -> records.py (analysis.json)
-> figures.py and depth.py; analyze_files.py takes all these steps. For tsv-merge,
weighting_figure.py draws how LATA has weighted blocks.
"""

from tsv_bench.analysis.analyze_files import Analyzed, analyze
from tsv_bench.analysis.records import render_blocks

__all__ = ["Analyzed", "analyze", "render_blocks"]
