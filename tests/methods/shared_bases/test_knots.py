"""Theorems of KnOTS, in float64, and its definition by singular value decompositions."""

import math
from contextlib import nullcontext

import pytest
import torch
from made_up.vectors import close, randn, random_vectors, read
from stand_ins.pretended_gpu import pretended_gpu

from tsv_bench import methods
from tsv_bench.methods.shared_bases import knots as module
from tsv_bench.methods.shared_bases.knots import leading_bits, lowest, shared_basis, smallest_kept
from tsv_bench.task_vectors.lazy import lazy_vectors
from tsv_bench.task_vectors.matrices import Matrices

MATRICES = ("in_proj_weight", "proj", "c_proj.weight")


def by_definition(vectors, density, whole=True, num_tasks=3):
    """Singular vectors of the matrices side by side; TIES on what tasks have along them."""
    bases, blocks = {}, {}
    for name in MATRICES:
        deltas = [vector[name] for vector in vectors.values()]
        u, s, vh = torch.linalg.svd(torch.cat(deltas, dim=1), full_matrices=False)
        u, s, vh = (u[:, s > 1e-5], s[s > 1e-5], vh[s > 1e-5])
        bases[name] = u
        blocks[name] = [s[:, None] * v for v in vh.split(deltas[0].shape[1], dim=1)]
    merged = {}
    for name in MATRICES:
        kept = []
        for task in range(num_tasks):
            seen = MATRICES if whole else (name,)
            entries = torch.cat([blocks[n][task].abs().flatten() for n in seen]).sort().values
            threshold = entries[-math.ceil(density * len(entries))]
            block = blocks[name][task]
            kept.append(torch.where(block.abs() >= threshold, block, 0))
        kept = torch.stack(kept)
        agrees = kept * kept.sum(0).sign() > 0
        merged[name] = bases[name] @ ((kept * agrees).sum(0) / agrees.sum(0).clamp(min=1))
    return merged


@pytest.mark.parametrize("density", [0.05, 0.2, 0.6, 1.0])
@pytest.mark.parametrize("trim", ["vector", "layer"])
def test_knots_is_its_definition(density, trim):
    vectors = random_vectors(3)
    for scale, vector in enumerate(vectors.values(), start=1):
        vector["proj"] = scale * vector["proj"]  # so that it matters what is trimmed together
    served = methods.knots(vectors, density=density, trim=trim)["task0"]
    for name, expected in by_definition(vectors, density, trim == "vector").items():
        torch.testing.assert_close(served[name], expected, **close)


def adapters(num_tasks=4, rank=2):
    """Low-rank deltas of two layers, and one that no adapter touches."""
    return {
        f"task{t}": {
            "q.weight": randn(16, rank) @ randn(rank, 12),
            "o.weight": 100 * randn(12, rank) @ randn(rank, 12),
            "fc.weight": torch.zeros(20, 12).double(),
        }
        for t in range(num_tasks)
    }


def test_of_adapters_only_what_they_span_is_counted():
    """A share of all 16 x 12 entries, most of them zero, would keep more."""
    vectors = adapters()
    deltas = [vector["q.weight"] for vector in vectors.values()]
    assert shared_basis(torch.stack(deltas)).shape == (16, 8)
    served = methods.knots(vectors, density=0.2, trim="layer")["task0"]["q.weight"]
    u, s, vh = torch.linalg.svd(torch.cat(deltas, dim=1), full_matrices=False)
    along = (s[:8, None] * vh[:8]).unflatten(1, (4, 12)).movedim(1, 0)
    num_kept = math.ceil(0.2 * 8 * 12)
    lowest_kept = along.abs().flatten(1).sort(descending=True).values[:, num_kept - 1]
    kept = torch.where(along.abs() >= lowest_kept[:, None, None], along, 0)
    agrees = kept * kept.sum(0).sign() > 0
    expected = u[:, :8] @ ((kept * agrees).sum(0) / agrees.sum(0).clamp(min=1))
    torch.testing.assert_close(served, expected, **close)


def test_directions_count_down_to_a_hundred_thousandth_of_the_largest():
    for smallest, expected in ((2e-5, 3), (5e-6, 2)):
        sizes = torch.diag(torch.tensor([1.0, smallest, 0.1], dtype=torch.float64))
        assert shared_basis(torch.stack([sizes, sizes])).shape == (3, expected)


@pytest.mark.parametrize("make", [adapters, lambda: random_vectors(3)], ids=["low rank", "full"])
def test_summed_along_shared_directions_it_is_task_arithmetic(make):
    vectors = make()
    served, whole = methods.knots(vectors, rule="sum"), methods.task_arithmetic(vectors)
    for name, delta in served["task0"].items():
        if delta.ndim == 2 and name != "text_projection":
            torch.testing.assert_close(delta, whole["task0"][name], **close)


@pytest.mark.parametrize("trim", ["vector", "layer"])
def test_one_task_and_equal_tasks_untrimmed_are_served_as_they_are(trim):
    for num_tasks in (1, 3):
        vectors = dict.fromkeys("abc"[:num_tasks], random_vectors(1)["task0"])
        served = read(methods.knots(vectors, density=1, trim=trim))
        torch.testing.assert_close(served, vectors, **close)


def test_a_rotation_of_the_outputs_rotates_the_merge():
    """Entries of the deltas do not count, only what they are along the shared directions."""
    vectors, turn = random_vectors(3), torch.linalg.qr(randn(12, 12)).Q
    turned = {t: v | {"proj": turn @ v["proj"]} for t, v in vectors.items()}
    merged, expected = (methods.knots(v)["task0"]["proj"] for v in (turned, vectors))
    torch.testing.assert_close(merged, turn @ expected, **close)
    plain = [methods.ties(v, density=0.2)["task0"]["proj"] for v in (turned, vectors)]
    assert not torch.allclose(plain[0], turn @ plain[1])


@pytest.mark.parametrize(("room", "again"), [(10**6, 0), (1000, 1), (150, 2), (0, 3)])
def test_bases_for_which_there_is_no_room_are_computed_again(monkeypatch, room, again):
    """They have 900, 144 and 100 entries."""
    sizes = []

    def counted(deltas):
        sizes.append(deltas.shape[1])
        return shared_basis(deltas)

    monkeypatch.setattr(module, "shared_basis", counted)
    monkeypatch.setattr(module, "KEPT_BASES", room)
    vectors = random_vectors(3)
    served = read(methods.knots(vectors))["task0"]
    assert len(sizes) == 3 + again
    for name, expected in by_definition(vectors, 0.2).items():
        torch.testing.assert_close(served[name], expected, **close)


def test_a_task_that_changed_nothing_counts_nowhere_but_in_means_of_other_layers():
    vectors = random_vectors(3)
    idle = {name: torch.zeros_like(delta) for name, delta in vectors["task0"].items()}
    served, more = (methods.knots(v)["task0"] for v in (vectors, vectors | {"idle": idle}))
    for name in MATRICES:
        torch.testing.assert_close(more[name], served[name], **close)


def test_fused_projections_are_one_matrix_unless_split():
    vectors = random_vectors(3)
    knobs = {"density": 0.3, "trim": "layer"}
    split = methods.knots(vectors, split_qkv=True, **knobs)["task0"]["in_proj_weight"]
    for index, part in enumerate(split.chunk(3)):
        own = {t: {"w": v["in_proj_weight"].chunk(3)[index]} for t, v in vectors.items()}
        torch.testing.assert_close(part, methods.knots(own, **knobs)["task0"]["w"], **close)


@pytest.mark.parametrize("density", [1e-9, 0.1, 0.5, 0.999, 1])
def test_a_threshold_keeps_what_is_asked_for_and_little_more(density):
    entries = randn(50, 400)
    counts = torch.bincount(leading_bits(entries).flatten(), minlength=2**module.BITS)
    found, exact = lowest(counts, density), smallest_kept(entries, density)
    assert exact * (1 - 2.5e-4) <= found <= exact
    assert exact == entries.abs().flatten().sort().values[-max(1, math.ceil(density * 20000))]
    more = ((entries.abs() >= found) & (entries.abs() < exact)).sum()
    assert more <= 10


@pytest.mark.parametrize("where", [nullcontext, pretended_gpu], ids=["CPU", "GPU"])
def test_entries_of_small_and_of_large_matrices_count_alike(where, monkeypatch):
    """Of 4096 and of 2000 larger ones, where those of less than 2^11 are counted one by one."""
    monkeypatch.setattr(module, "BITS", 11)
    vectors = [{"large": randn(64, 64), "small": 5 * randn(40, 50)} for _ in range(2)]
    aligned = module.AlignedLayers(lazy_vectors(vectors), Matrices.of(None, False))
    along = [[], []]
    for name in vectors[0]:
        for _, pieces in aligned.pieces(name, torch.stack([vector[name] for vector in vectors])):
            for of_task, piece in zip(along, pieces, strict=True):
                of_task.append(piece.flatten())
    with where():
        device = "cpu" if where is nullcontext else "cuda"
        there = [{name: delta.to(device) for name, delta in v.items()} for v in vectors]
        aligned = module.AlignedLayers(lazy_vectors(there), Matrices.of(None, False))
        thresholds = aligned.thresholds(0.2)
    for entries, found in zip(map(torch.cat, along), thresholds, strict=True):
        exact = smallest_kept(entries, 0.2)
        assert found <= exact < found * (1 + 2**-3)  # three digits are left beside the exponent


def test_there_may_be_nothing_to_trim():
    assert lowest(torch.zeros(4, dtype=torch.int64), 0.2) == 0
    vectors = {task: {"bias": randn(4), "w": torch.zeros(3, 3).double()} for task in "ab"}
    served = methods.knots(vectors)["a"]
    assert not served["w"].any()
    torch.testing.assert_close(served["bias"], (vectors["a"]["bias"] + vectors["b"]["bias"]) / 2)
