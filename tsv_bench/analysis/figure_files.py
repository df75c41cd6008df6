"""The names of an analysis' figures, known without what draws them."""

CAPTIONS = "figures.md"
FIGURES = ("interference", "energy", "cosines", "effective-rank")


def figure_names() -> list[str]:
    """Return the names of all files that `figures.save_analysis` may write."""
    return [CAPTIONS, *(f"{name}.{end}" for name in FIGURES for end in ("svg", "png"))]
