"""Reports of Runs.

Runs -> tables/ (rows, intervals, comparisons) -> text/ (terminal, markdown, LaTeX, csv), plots/
(figures) and page/ (html); write_report.py writes the files. tracking.py shows single Runs on
Weights & Biases.
"""
