"""The kinds of statistics that methods see, in words."""

from collections.abc import Sequence

# Kind, which is the name of the argument that a method receives -> what it holds of a layer.
KINDS = {
    "inputs": "x^T x of a linear layer's inputs x [count, n], as [n, n]",
    "means": "the mean of a linear layer's inputs, as [n]",
    "fisher": "the diagonal of the Fisher information matrix, in the parameter's shape",
}


def check_kinds(kinds: Sequence[object]) -> None:
    """Raise ValueError unless these are kinds of statistics, one at least, each once."""
    if not kinds or any(kind not in KINDS for kind in kinds) or len(set(kinds)) < len(kinds):
        raise ValueError(f"kinds={list(kinds)} is not a list of some of {', '.join(KINDS)}.")
