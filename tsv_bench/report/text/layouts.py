"""The layouts of tables: runs, paper, leaderboard."""

LAYOUTS = {"runs": "table", "paper": "paper", "leaderboard": "leaderboard"}  # -> file name


def check_layout(layout: object) -> None:
    """Raise ValueError for an unknown layout."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r} is unknown; there are: {', '.join(LAYOUTS)}.")
