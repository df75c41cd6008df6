"""Figures: one file a family, all in one style."""

from tsv_bench.plots.tables import plot_alphas, plot_methods, plot_tasks

__all__ = ["plot_alphas", "plot_methods", "plot_tasks"]
