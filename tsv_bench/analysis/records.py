"""The content of analysis.json: measures of layers as plain data, and their summaries.

Numbers have six significant digits; null stands where a task has changed nothing.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tsv_bench.analysis.measures import Layer, Matrix, energy_shares
from tsv_bench.task_vectors.places import Place, place_of
from tsv_bench.wording.columns import align

PIECES = ("q", "k", "v")  # the three matrices that split_qkv makes of a fused projection

DEFINITIONS = {
    "interference": "singular task interference || (U^T U - I) diag(s) (V^T V - I) ||_1, "
    "entrywise, of the tasks' leading singular vectors side by side (arXiv:2412.00081): raw as "
    "they are, merged after the polar factors of TSV-M. pairs[i][j] = "
    "|| U_i^T U_j diag(s_j) V_j^T V_i ||_1, what task j alone puts into the directions of task i; "
    "of two tasks the sum is raw",
    "rank": "singular triplets that each task keeps, of full_rank",
    "subspace_cosine": "|| U_i^T U_j ||_F^2 / rank: the mean squared cosine of the principal "
    "angles between what two tasks keep, of left and of right singular vectors; of random "
    "subspaces about rank / side",
    "polar": "error: max |U^T U - I| of the polar factor on its thin side, 1e-6 and less where the "
    "tasks' vectors are independent; spanned: directions that they span together",
    "norm": "Frobenius norm of each task's delta",
    "cosine": "of the tasks' deltas as vectors",
    "largest": "singular value of each task's delta",
    "energy_kept": "share of the squared norm in the triplets that a task keeps",
    "effective_rank": "exp of the entropy of s / sum(s) (Roy & Vetterli, EUSIPCO 2007)",
    "stable_rank": "squared Frobenius norm over squared spectral norm",
    "energy": "share of the squared norm in the leading singular values, at energy_shares of the "
    "full rank",
    "overall, blocks, kinds": "means over matrices (and over tasks, or pairs of different tasks); "
    "effective_rank as a share of the full rank; polar_error the largest",
}


def make_records(layers: Sequence[Layer], tasks: Sequence[str]) -> dict[str, Any]:
    """Return the measures of all layers, and their means over blocks and kinds of layers."""
    products = torch.stack([layer.products for layer in layers]).sum(dim=0)
    changed = [layer for layer in layers if layer.is_changed]
    found = [(place_of(layer.name), matrix) for layer in changed for matrix in layer.matrices]
    matrices = [matrix for _, matrix in found]
    return plain(
        {
            "definitions": DEFINITIONS,
            "tasks": list(tasks),
            "energy_shares": energy_shares(),
            "task_vectors": {"norm": norms(products), "cosine": cosines(products)},
            "overall": summarize(matrices)
            | {
                "subspace_cosine_of_tasks": {
                    "left": mean_of(matrices, lambda matrix: matrix.left_cosines),
                    "right": mean_of(matrices, lambda matrix: matrix.right_cosines),
                }
            },
            "blocks": [
                {"block": block} | summarize(own)
                for block, own in grouped(found, lambda place: place.block)
            ],
            "kinds": [
                {"kind": kind} | summarize(own)
                for kind, own in grouped(found, lambda place: place.kind)
            ],
            "layers": [layer_record(layer) for layer in changed],
            "unchanged": [layer.name for layer in layers if not layer.is_changed],
        }
    )


def layer_record(layer: Layer) -> dict[str, Any]:
    """Return the measures of a layer and of its matrices."""
    place, pieces = place_of(layer.name), PIECES if len(layer.matrices) == 3 else [None]
    return {
        "name": layer.name,
        "stack": place.stack,
        "depth": place.depth,
        "kind": place.kind,
        "shape": list(layer.shape),
        "norm": norms(layer.products),
        "cosine": cosines(layer.products),
        "matrices": [
            {"piece": piece} | matrix_record(matrix)
            for piece, matrix in zip(pieces, layer.matrices, strict=False)
        ],
    }


def matrix_record(matrix: Matrix) -> dict[str, Any]:
    """Return the measures of a matrix; see `DEFINITIONS`."""
    return {
        "shape": list(matrix.shape),
        "full_rank": min(matrix.shape),
        "rank": matrix.rank,
        "interference": {"raw": matrix.raw, "merged": matrix.merged, "pairs": matrix.pairs},
        "subspace_cosine": {"left": matrix.left_cosines, "right": matrix.right_cosines},
        "polar": {
            "left": {"error": matrix.left_error, "spanned": matrix.left_spanned},
            "right": {"error": matrix.right_error, "spanned": matrix.right_spanned},
        },
        "largest": matrix.largest,
        "energy_kept": matrix.kept_energy,
        "effective_rank": matrix.effective_rank,
        "stable_rank": matrix.stable_rank,
        "energy": matrix.energy,
    }


def summarize(matrices: Sequence[Matrix]) -> dict[str, Any]:
    """Return the means over matrices, and over tasks or pairs of tasks."""

    def cosine(matrix: Matrix) -> Tensor:
        both = torch.stack([matrix.left_cosines, matrix.right_cosines])
        apart = ~torch.eye(both.shape[1], dtype=torch.bool)
        return both[:, apart].nanmean()

    return {
        "num_matrices": len(matrices),
        "interference": {
            "raw": mean_of(matrices, lambda matrix: torch.tensor(matrix.raw)),
            "merged": mean_of(matrices, lambda matrix: torch.tensor(matrix.merged)),
        },
        "subspace_cosine": mean_of(matrices, cosine),
        "energy_kept": mean_of(matrices, lambda matrix: matrix.kept_energy.nanmean()),
        "effective_rank": mean_of(
            matrices, lambda matrix: matrix.effective_rank.nanmean() / min(matrix.shape)
        ),
        "stable_rank": mean_of(matrices, lambda matrix: matrix.stable_rank.nanmean()),
        "polar_error": max(max(matrix.left_error, matrix.right_error) for matrix in matrices),
    }


def mean_of(matrices: Iterable[Matrix], of: Callable[[Matrix], Tensor]) -> Tensor:
    """Return the mean over matrices of a measure, leaving nan out."""
    return torch.stack([of(matrix) for matrix in matrices]).double().nanmean(dim=0)


def grouped(
    found: Iterable[tuple[Place, Matrix]], key: Callable[[Place], str]
) -> list[tuple[str, list[Matrix]]]:
    """Group matrices by a key of their place, in the order of first appearance."""
    groups: dict[str, list[Matrix]] = {}
    for place, matrix in found:
        groups.setdefault(key(place), []).append(matrix)
    return list(groups.items())


def norms(products: Tensor) -> Tensor:
    """Return the norms of vectors with these inner products: [tasks, tasks] -> [tasks]."""
    return products.diagonal().sqrt()


def cosines(products: Tensor) -> Tensor:
    """Return the cosines of vectors with these inner products; nan for a vector of zeros."""
    lengths = norms(products)
    return products / (lengths[:, None] * lengths)


def plain(value: Any) -> Any:
    """Replace tensors by lists, numbers by rounded ones, nan by None."""
    if isinstance(value, float):  # first, as there are a hundred thousand
        return None if math.isnan(value) else float(f"{value:.6g}")
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(own) for own in value]
    if isinstance(value, Mapping):
        return {key: plain(own) for key, own in value.items()}
    return value


def as_text(records: Mapping[str, Any]) -> str:
    """Return json with a line for each layer, block and kind."""

    def lines(value: Any) -> str:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return "[\n  " + ",\n  ".join(_dumped(own) for own in value) + "\n ]"
        return _dumped(value)

    parts = [f" {json.dumps(key)}: {lines(value)}" for key, value in records.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _dumped(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def render_blocks(records: Mapping[str, Any]) -> str:
    """Return a table of the blocks' means as aligned text."""
    header = ["block", "matrices", "STI raw", "merged", "energy kept", "subspace cosine"]
    rows = [
        [
            name,
            str(row["num_matrices"]),
            _number(row["interference"]["raw"]),
            _number(row["interference"]["merged"]),
            _number(row["energy_kept"]),
            _number(row["subspace_cosine"]),
        ]
        for name, row in [
            *((row["block"], row) for row in records["blocks"]),
            ("all", records["overall"]),
        ]
    ]
    return align([header, *rows], gap=2)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
