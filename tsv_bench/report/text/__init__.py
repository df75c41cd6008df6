"""Tables as text.

A layout (runs.py, leaderboard.py, paper.py, two_methods.py) makes sheets of a table; sheet.py
renders a sheet as markdown, LaTeX or aligned text. csv comes from the table itself, in fractions.
"""
