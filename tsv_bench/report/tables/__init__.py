"""Runs become tables: rows, intervals, notes, comparisons."""
