"""A method on a suite: from checkpoints to one Run.

`record` makes the Run of a cell, `evaluate` its numbers, `runs` keeps it. Nothing is imported
here: tsv-report reads Runs and must not load networks.
"""
