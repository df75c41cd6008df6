"""Theorems of Iso-C and Iso-CTS, in float64."""

import pytest
import torch
from golden.compare import GOLDEN
from made_up.vectors import close, randn, random_vectors
from safetensors.torch import load_file
from torch.linalg import qr, svd, svdvals

from tsv_bench import methods
from tsv_bench.methods.matrixwise.iso import directions, isotropic_subspaces, isotropic_sum
from tsv_bench.task_vectors.task_vector import TaskVector

SHAPES = [(24, 24), (40, 24), (24, 40)]
# Random directions that fill a whole side may be nearly dependent (condition number 1e3 to 1e4);
# the polar factor goes by their Gram matrix, so rounding grows by its square.
nearly = {"rtol": 1e-7, "atol": 1e-7}


def iso_c_by_definition(deltas):
    u, s, vh = svd(deltas.sum(0), full_matrices=False)
    return s.mean() * u @ vh


def iso_cts_by_definition(deltas, common, per_task):
    u, s, vh = (x for x in svd(deltas.sum(0), full_matrices=False))
    u, s, vh = u[:, :common], s[:common], vh[:common]
    parts = [(u, s, vh)]
    for delta in deltas:
        own_u, own_s, own_vh = svd(delta - u @ u.mT @ delta, full_matrices=False)
        parts.append((own_u[:, :per_task], own_s[:per_task], own_vh[:per_task]))
    (p, _, q), (w, _, x) = (
        svd(side, full_matrices=False)
        for side in (torch.cat([p[0] for p in parts], 1), torch.cat([p[2] for p in parts]))
    )
    return torch.cat([p[1] for p in parts]).mean() * (p @ q) @ (w @ x)


@pytest.mark.parametrize("shape", SHAPES)
def test_iso_c_is_its_definition(shape):
    deltas = randn(3, *shape)
    torch.testing.assert_close(isotropic_sum(deltas), iso_c_by_definition(deltas), **close)


@pytest.mark.parametrize("shape", SHAPES)
def test_iso_c_has_a_flat_spectrum_of_the_same_sum(shape):
    deltas = randn(3, *shape)
    before, after = svdvals(deltas.sum(0)), svdvals(isotropic_sum(deltas))
    torch.testing.assert_close(after, before.mean().expand(len(before)), **close)


def test_iso_c_leaves_a_flat_spectrum_alone():
    """Any other level than the mean, or directions other than the sum's, would change it."""
    frame = 3 * qr(randn(40, 24)).Q
    share = torch.tensor([0.5, -0.25, 0.75], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(isotropic_sum(share * frame), frame, **close)


def test_the_mean_may_be_of_what_the_sum_spans():
    deltas = randn(2, 24, 3) @ randn(2, 3, 40)  # of a sum of rank 6
    found = methods.iso_c({"a": {"w": deltas[0]}, "b": {"w": deltas[1]}}, mean_over="spanned")
    u, s, vh = svd(deltas.sum(0), full_matrices=False)
    torch.testing.assert_close(found["a"]["w"], s[:6].mean() * u[:, :6] @ vh[:6], **nearly)
    with pytest.raises(ValueError, match="mean_over='some' is not"):
        methods.iso_c({}, mean_over="some")


def test_iso_c_invents_no_directions():
    """Of a sum of rank 2 only two directions are known: others stay zero, the mean is of all."""
    deltas = randn(2, 24, 1) @ randn(2, 1, 16)
    merged = isotropic_sum(deltas)
    level = svdvals(deltas.sum(0)).sum() / 16
    expected = torch.cat([level.expand(2), torch.zeros(14, dtype=torch.float64)])
    torch.testing.assert_close(svdvals(merged), expected, **close)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_tasks", [1, 2, 5])
def test_iso_cts_is_its_definition(shape, num_tasks):
    deltas = randn(num_tasks, *shape)
    common, per_task = directions(24, num_tasks, 0.8)
    expected = iso_cts_by_definition(deltas, common, per_task)
    torch.testing.assert_close(isotropic_subspaces(deltas, 0.8), expected, **nearly)


@pytest.mark.parametrize("common_fraction", [0, 0.5, 0.8])
@pytest.mark.parametrize("shape", SHAPES)
def test_iso_cts_has_a_flat_spectrum(shape, common_fraction):
    values = svdvals(isotropic_subspaces(randn(4, *shape), common_fraction))
    torch.testing.assert_close(values, values.mean().expand(24), **nearly)


@pytest.mark.parametrize("shape", SHAPES)
def test_iso_cts_with_common_directions_only_is_iso_c(shape):
    deltas = randn(3, *shape)
    torch.testing.assert_close(isotropic_subspaces(deltas, 1.0), isotropic_sum(deltas), **close)


def test_iso_cts_gives_each_task_what_the_common_directions_lack():
    """Two tasks, disjoint: the weak one has no place among the common directions, only its own."""
    u, v = qr(randn(12, 4)).Q, qr(randn(4, 4)).Q
    strong = u[:, :3] * torch.tensor([9.0, 8.0, 7.0], dtype=torch.float64) @ v[:, :3].mT
    weak = 0.1 * torch.outer(u[:, 3], v[:, 3])
    deltas = torch.stack([strong, weak])
    assert directions(4, 2, 0.5) == (2, 1)
    expected = (9 + 8 + 7 + 0.1) / 4 * u @ v.mT
    torch.testing.assert_close(isotropic_subspaces(deltas, 0.5), expected, **close)


def test_iso_cts_of_a_task_within_the_common_directions_adds_nothing_of_it():
    """What projecting leaves of such tasks is rounding: it must not be raised to the level."""
    deltas = randn(3, 24, 1) @ randn(3, 1, 16)
    merged = isotropic_subspaces(deltas, 0.8)
    assert torch.linalg.matrix_rank(merged) == 3
    basis = svd(deltas.sum(0)).U[:, :3]
    torch.testing.assert_close(basis @ basis.mT @ merged, merged, **close)


@pytest.mark.parametrize(
    ("full_rank", "num_tasks", "fraction", "expected"),
    [
        (768, 8, 0.8, (616, 19)),  # the authors': 154 left, 19.25 each
        (768, 14, 0.8, (614, 11)),
        (768, 20, 0.8, (608, 8)),  # 7.7 is rounded up, so there are fewer common ones
        (100, 1, 0.29, (29, 71)),
        (10, 15, 0.8, (10, 0)),  # T > r
        (5, 3, 0.0, (2, 1)),  # 1.67 is not rounded up: 6 of 5 is too many
    ],
)
def test_directions_are_those_of_the_authors(full_rank, num_tasks, fraction, expected):
    assert directions(full_rank, num_tasks, fraction) == expected


@pytest.mark.parametrize("method", [methods.iso_c, methods.iso_cts])
def test_a_fused_projection_can_count_as_three(method):
    vectors = random_vectors(3)
    thirds = {
        task: {f"{i}": part for i, part in enumerate(vector["in_proj_weight"].chunk(3))}
        for task, vector in vectors.items()
    }
    split, apart = method(vectors, split_qkv=True)["task0"], method(thirds)["task0"]
    expected = torch.cat([apart["0"], apart["1"], apart["2"]])
    torch.testing.assert_close(split["in_proj_weight"], expected, **close)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_common_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match=r"common_fraction=.* is not in \[0, 1\]"):
        methods.iso_cts({}, common_fraction=fraction)


@pytest.mark.parametrize("name", ["iso_c", "iso_cts"])
def test_merged_vector_is_that_of_the_authors_code(name):
    """To 1e-5 of each parameter, the rounding of their SVDs in float32; zero where theirs is."""
    pretrained = load_file(GOLDEN / "pretrained.safetensors")
    vectors = {
        f"task{t}": TaskVector(pretrained, load_file(GOLDEN / f"task{t}.safetensors"))
        for t in range(3)
    }
    merged = getattr(methods, name)(vectors)["task0"]
    golden = load_file(GOLDEN / f"out_{name}.safetensors")
    assert set(merged) == set(golden)
    for layer, there in golden.items():
        assert (merged[layer] - there).norm() <= 1e-5 * there.norm(), layer
