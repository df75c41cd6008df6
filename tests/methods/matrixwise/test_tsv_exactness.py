"""A merged layer in float32 is the one that float64 gives, whatever the spectra of the tasks."""

from functools import partial

import pytest
import torch
from made_up import spectra
from made_up.spectra import exact_merge

from tsv_bench.linalg import polar, svd
from tsv_bench.methods.matrixwise.tsv import merge_matrix

ROUTES = {"gram": {"svd": "gram", "polar": "eigen"}, "svd": {"svd": "svd", "polar": "svd"}}
ALONE, CORRECTED, DOUBLE = "float32 alone", "corrected", "float64"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Two would wait for each other on a busy machine, for longer than these sizes take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def half(monkeypatch):
    """Matrices are large from half the sides on that are large to users: an eighth of the time."""
    monkeypatch.setattr(svd, "SMALL", svd.SMALL // 2)
    monkeypatch.setattr(polar, "FEW", polar.FEW // 2)


def error(found, expected):
    assert found.dtype == torch.float32 and found.isfinite().all()
    return float((found.double() - expected).norm() / expected.norm())


@pytest.fixture
def branches(monkeypatch):
    """How the leading eigenvectors of Gram matrices were found, in the order of the matrices."""
    taken, sides = [], []
    eigh, subspace, corrected = svd.eigh, svd._subspace, svd._corrected
    leading_eigh = svd._leading_eigh

    def spy_subspace(a, rank):
        taken.append(None)
        sides.append(a.shape[-1])
        return subspace(a, rank)

    def spy_leading_eigh(gram, width):
        taken[-1] = ALONE
        return leading_eigh(gram, width)

    def spy_eigh(gram):
        # Not of the few directions that were found.
        if gram.shape[-1] == sides[-1] and gram.dtype == torch.float64:
            taken[-1] = DOUBLE
        return eigh(gram)

    def spy_corrected(*args):
        taken[-1] = CORRECTED
        return corrected(*args)

    monkeypatch.setattr(svd, "_subspace", spy_subspace)
    monkeypatch.setattr(svd, "eigh", spy_eigh)
    monkeypatch.setattr(svd, "_leading_eigh", spy_leading_eigh)
    monkeypatch.setattr(svd, "_corrected", spy_corrected)
    return taken


# The shapes are such that float32 is tried (a side above 128, at most half of it wanted), but for
# two tasks; plateaus are what broke an earlier choice between the branches, by their numbers then.
CASES = {
    "shared-8-144x144": (spectra.shared, 8, 144, 144),
    "shared-20-144x216": (spectra.shared, 20, 144, 216),
    "shared-2-288x144": (spectra.shared, 2, 288, 144),
    "noise-8-192x144": (spectra.noise, 8, 192, 144),
    "noise-20-144x144": (spectra.noise, 20, 144, 144),
    "power-8-144x192": (spectra.power, 8, 144, 192),
    "steep-8-216x144": (spectra.steep, 8, 216, 144),
    "steep-2-144x144": (spectra.steep, 2, 144, 144),
    "dominant-8-144x144": (spectra.dominant, 8, 144, 144),
    "lora-1e-7": (partial(spectra.lora, size=1e-7), 8, 144, 144),
    "lora-1e-5": (partial(spectra.lora, size=1e-5), 8, 144, 192),
    "lora-1e-4": (partial(spectra.lora, size=1e-4), 8, 192, 144),
    "bfloat16-8-144x144": (spectra.bfloat16, 8, 144, 144),
    "low-rank-8-144x144": (spectra.low_rank, 8, 144, 144),
    "outlier-8-144x144": (spectra.outlier, 8, 144, 144),
}
PLATEAUS = {  # error by the Gram matrices then, by SVDs in float32: tasks, m, n and the rest
    "6e-4, 3e-5": (8, 320, 320, dict(rank=40, low=0.055, beyond=1e-3, angle=0.1)),
    "5e-3, 4e-4": (8, 320, 320, dict(rank=40, low=0.055, beyond=1e-3, angle=0.01)),
    "1e-2, 2e-3": (4, 640, 320, dict(rank=80, low=0.045, beyond=0.008, edge=0.9985, angle=0.005)),
    "4e-3, 3e-4": (4, 528, 264, dict(rank=66, low=0.0034, beyond=0.9, far=0.5, angle=0.083)),
    "5e-4, 1e-4": (5, 576, 288, dict(rank=57, low=0.0093, beyond=0.9, angle=0.28)),
    "2e-2, 3e-3": (8, 264, 264, dict(rank=8, low=0.0026, beyond=0.5, angle=0.0036)),
}


def check(deltas, rank):
    # Half a triplet more, as the share is rounded down.
    merge = partial(merge_matrix, deltas, (rank + 0.5) / min(deltas.shape[1:]))
    expected = exact_merge(deltas, rank)
    quick, by_svds = (error(merge(**route), expected) for route in ROUTES.values())
    assert quick <= max(1e-4, 2 * by_svds), f"{quick:.1e}, by SVDs in float32 {by_svds:.1e}"
    # Both routes end in one product of ours: what is wrong there would widen the bound for both.
    by_steps = error(exact_merge(deltas, rank, torch.float32), expected)
    assert by_svds <= max(1e-4, 2 * by_steps), f"{by_svds:.1e}, step by step {by_steps:.1e}"
    return quick, by_svds


@pytest.mark.parametrize("case", CASES)
def test_merged_layer_is_that_of_float64(case, half):
    make, num_tasks, m, n = CASES[case]
    check(make(num_tasks, m, n), min(m, n) // num_tasks)


@pytest.mark.parametrize("case", PLATEAUS)
def test_directions_that_tasks_share_do_not_magnify_what_float32_leaves(case):
    num_tasks, m, n, spectrum = PLATEAUS[case]
    check(spectra.plateau(num_tasks, m, n, **spectrum), spectrum["rank"])


def test_merged_layer_of_a_backbone_is_that_of_float64():
    check(spectra.shared(3, 768, 768), 96)


@pytest.mark.parametrize("shape", [(200, 160), (160, 200), (160, 160)])
@pytest.mark.parametrize(
    ("make", "branch"),
    [
        (partial(spectra.plateau, rank=40, low=0.9, beyond=1e-3), ALONE),
        (partial(spectra.plateau, rank=40, low=0.05, beyond=1e-3), CORRECTED),
        (spectra.power, CORRECTED),
        (partial(spectra.plateau, rank=40, low=1e-3, beyond=1e-3), DOUBLE),
        (partial(spectra.lora, size=1e-5), DOUBLE),
    ],
)
def test_every_branch_is_taken_and_finds_the_triplets(make, branch, shape, half, branches):
    deltas = make(2, *shape)
    u, s, vh = svd.truncated_svd(deltas, 40)
    assert branches == [branch] * 2
    error = torch.linalg.matrix_norm(deltas.double() - (u * s[:, None] @ vh).double())
    values = torch.linalg.svdvals(deltas.double())
    # float32 rounds the factors themselves by 6e-8 of the largest value.
    torch.testing.assert_close(error, values[:, 40:].norm(dim=1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(s.double(), values[:, :40], rtol=1e-6, atol=1e-9)


def test_small_or_mostly_wanted_matrices_go_by_float64(branches):
    svd.truncated_svd(torch.randn(400, 256), 20)
    svd.truncated_svd(torch.randn(320, 320), 150)
    assert branches == [DOUBLE] * 2


def test_matrices_decomposed_at_once_are_as_good_as_one_by_one():
    """As on a GPU; of every branch and of different scales, one of them zero."""
    lows, scales = [0.9, 0.05, 0.05, 1e-3, 0.05], [1, 1e-6, 1e6, 1, 0]
    batch = torch.cat([spectra.plateau(1, 320, 300, 40, low, 0.5) for low in lows])
    batch *= torch.tensor(scales)[:, None, None]
    u, s, vh = svd._leading_triplets(batch, 40)
    for i, matrix in enumerate(batch.split(1)):
        own_u, own_s, own_vh = svd._leading_triplets(matrix, 40)
        found, expected = u[i] * s[i] @ vh[i], own_u[0] * own_s @ own_vh[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * scales[i])
