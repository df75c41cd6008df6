"""Tables of Runs as data: rows, their intervals, notes and comparisons; no text, no percent.

read_evaluated -> build_tables (table.py) -> a `Table` of `Row`s. two_methods.py compares two rows,
rank_curves.py follows a method over its ranks, orderings.py compares with the published order.
"""
