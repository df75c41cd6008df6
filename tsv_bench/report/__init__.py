"""Reports of Runs.

Runs -> tables/ (rows, intervals, comparisons) -> text/ (terminal, markdown, LaTeX, csv), plots/
(figures) and page/ (html); write_report.py writes the files, unless drawn.py tells that figures
are there as they would be drawn. tracking.py shows single Runs on Weights & Biases.
"""
