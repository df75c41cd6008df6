"""Figures of tables: a file for each family, all in the style of style.py.

figures.py draws every family that a table has the Runs for, with its caption, and writes them.
"""

from tsv_bench.report.plots.accuracies import plot_methods, plot_tasks
from tsv_bench.report.plots.alphas import plot_alphas
from tsv_bench.report.plots.figures import Drawn, draw_figures, save_figures
from tsv_bench.report.plots.radar import plot_radar
from tsv_bench.report.plots.ranks import plot_ranks
from tsv_bench.report.plots.rounds import plot_rounds
from tsv_bench.report.plots.searches import plot_searches
from tsv_bench.report.plots.sizes import plot_sizes
from tsv_bench.report.plots.style import svg_bytes

__all__ = [
    "Drawn",
    "draw_figures",
    "plot_alphas",
    "plot_methods",
    "plot_radar",
    "plot_ranks",
    "plot_rounds",
    "plot_searches",
    "plot_sizes",
    "plot_tasks",
    "save_figures",
    "svg_bytes",
]
