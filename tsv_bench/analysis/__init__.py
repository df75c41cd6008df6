"""What tsv-analyze does: checkpoint files to one json of measures and its figures."""

from tsv_bench.analysis.analyze_files import Analyzed, analyze
from tsv_bench.analysis.records import render_blocks

__all__ = ["Analyzed", "analyze", "render_blocks"]
