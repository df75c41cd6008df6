"""Figures: one file a family, all in one style."""

from tsv_bench.report.plots.accuracies import plot_methods, plot_tasks
from tsv_bench.report.plots.alphas import plot_alphas
from tsv_bench.report.plots.figures import Drawn, draw_figures, save_figures
from tsv_bench.report.plots.radar import plot_radar
from tsv_bench.report.plots.ranks import plot_ranks
from tsv_bench.report.plots.sizes import plot_sizes
from tsv_bench.report.plots.style import svg_bytes

__all__ = [
    "Drawn",
    "draw_figures",
    "plot_alphas",
    "plot_methods",
    "plot_radar",
    "plot_ranks",
    "plot_sizes",
    "plot_tasks",
    "save_figures",
    "svg_bytes",
]
