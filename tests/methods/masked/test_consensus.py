"""Theorems of Consensus merging, and parity with the code of its paper."""

import logging
from functools import partial

import pytest
import torch
from golden.compare import GOLDEN
from made_up.vectors import close, randn, random_vectors, read
from safetensors.torch import load_file

from tsv_bench import methods
from tsv_bench.methods.masked.tall_mask import tall_mask
from tsv_bench.task_vectors.task_vector import TaskVector

CONSENSUS = {
    "ta": methods.consensus_ta,
    "ties": partial(methods.consensus_ties, density=0.2),
}
each = pytest.mark.parametrize("consensus", CONSENSUS.values(), ids=CONSENSUS)
MERGED = {
    "ta": methods.task_arithmetic,
    "ties": partial(methods.ties, density=0.2, merge="sum"),
}
each_with_merged = pytest.mark.parametrize(
    ("consensus", "merged"), [(CONSENSUS[name], MERGED[name]) for name in CONSENSUS], ids=CONSENSUS
)


def reference(columns, merged, mask_lambda, min_tasks):
    """Entry by entry: ``columns`` has one list of deltas an entry, ``merged`` its merged value."""
    kept = []
    for deltas, value in zip(columns, merged, strict=True):
        votes = [abs(delta) > mask_lambda * abs(value - delta) for delta in deltas]
        kept.append(value if sum(votes) >= min_tasks else 0.0)
    return kept


@each_with_merged
@pytest.mark.parametrize("mask_lambda", [0.2, 0.4, 1.0])
@pytest.mark.parametrize("min_tasks", [1, 2, 4])
def test_an_entry_stays_where_enough_tasks_want_it(consensus, merged, mask_lambda, min_tasks):
    vectors = random_vectors(4)
    served = consensus(vectors, mask_lambda=mask_lambda, min_tasks=min_tasks)["task0"]
    for name, whole in merged(vectors)["task0"].items():
        columns = torch.stack([v[name].flatten() for v in vectors.values()], dim=1).tolist()
        expected = reference(columns, whole.flatten().tolist(), mask_lambda, min_tasks)
        torch.testing.assert_close(served[name].flatten().tolist(), expected, **close)


@each_with_merged
def test_fewer_entries_stay_the_more_tasks_must_want_them(consensus, merged):
    vectors = random_vectors(4)
    whole = merged(vectors)["task0"]["proj"]
    stay = [
        consensus(vectors, mask_lambda=0.4, min_tasks=k)["task0"]["proj"] for k in (1, 2, 3, 4, 5)
    ]
    for more, fewer in zip(stay, stay[1:], strict=False):
        assert ((fewer == more) | (fewer == 0)).all()
        assert (fewer == 0).sum() > (more == 0).sum() or not more.any()
    assert ((stay[0] == whole) | (stay[0] == 0)).all()
    assert not stay[-1].any()


@each_with_merged
def test_one_task_is_wanted_by_itself_alone(consensus, merged):
    vectors = random_vectors(1)
    alone = consensus(vectors, mask_lambda=0.4, min_tasks=1)
    torch.testing.assert_close(read(alone), read(merged(vectors)), **close)
    for delta in consensus(vectors, mask_lambda=0.4, min_tasks=2)["task0"].values():
        assert not delta.any()


@each_with_merged
def test_tasks_that_are_the_same_want_the_same(consensus, merged):
    """T alike: each is T - 1 of itself away from the sum, and wanted while lambda (T - 1) < 1."""
    vector = {"w": randn(8, 5)}
    vectors = {task: vector for task in "abcd"}
    whole = merged(vectors)["a"]["w"]
    near = consensus(vectors, mask_lambda=0.33, min_tasks=4)["a"]["w"]
    torch.testing.assert_close(near, whole, rtol=0, atol=0)
    far = consensus(vectors, mask_lambda=0.34, min_tasks=1)["a"]["w"]
    assert not far[whole.abs() > vector["w"].abs()].any()


@each
def test_selfish_entries_drop_out(consensus):
    """Tasks of disjoint support: every entry is wanted by one task, none by two."""
    deltas = randn(3, 30) * (torch.arange(30) % 3 == torch.arange(3)[:, None])
    vectors = {f"task{t}": {"w": delta} for t, delta in enumerate(deltas)}
    one, two = (consensus(vectors, mask_lambda=0.4, min_tasks=k)["task0"]["w"] for k in (1, 2))
    assert not two.any()
    assert torch.equal(one[one != 0], deltas.sum(0)[one != 0]) and one.any()


@each
def test_scale_of_the_tasks_goes_through(consensus):
    vectors = random_vectors(3)
    scaled = {t: {n: -4 * d for n, d in v.items()} for t, v in vectors.items()}  # exact
    knobs = {"mask_lambda": 0.4, "min_tasks": 2}
    expected = {n: -4 * d for n, d in consensus(vectors, **knobs)["task0"].items()}
    torch.testing.assert_close(dict(consensus(scaled, **knobs)["task0"]), expected, **close)


def test_no_task_wants_what_it_did_not_change():
    deltas = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    assert tall_mask(deltas, deltas.sum(0), 0).tolist() == [[False, True], [False, False]]


def test_a_mask_of_large_lambda_asks_for_entries_close_to_the_merged():
    deltas = randn(4, 100)
    narrow, wide = (tall_mask(deltas, deltas.sum(0), mask_lambda) for mask_lambda in (2.0, 0.5))
    assert (narrow <= wide).all() and narrow.sum() < wide.sum()


@each
def test_fewer_tasks_than_must_want_an_entry_are_told(consensus, caplog):
    with caplog.at_level(logging.WARNING):
        consensus(random_vectors(2), mask_lambda=0.4, min_tasks=2)
        consensus({}, mask_lambda=0.4, min_tasks=2)
        assert not caplog.records
        consensus(random_vectors(2), mask_lambda=0.4, min_tasks=77)
    assert len(caplog.records) <= 1  # once, whichever method it is
    assert all("min_tasks=77 is more than there are tasks (2)" in r.message for r in caplog.records)


def test_masks_compare_task_vectors_that_are_not_trimmed():
    """Trimming leaves the first entry to one task alone, yet the other wants it too."""
    vectors = {"a": {"w": torch.tensor([8.0, 1.0])}, "b": {"w": torch.tensor([5.0, 9.0])}}
    served = methods.consensus_ties(vectors, density=0.5, mask_lambda=1.0, min_tasks=2)["a"]
    assert served["w"].tolist() == [8, 0]


@pytest.mark.parametrize("name", CONSENSUS)
def test_served_vector_is_that_of_the_papers_code(name):
    pretrained = load_file(GOLDEN / "pretrained.safetensors")
    vectors = {
        task: TaskVector(pretrained, load_file(GOLDEN / f"{task}.safetensors"))
        for task in ("task0", "task1", "task2")
    }
    golden = load_file(GOLDEN / f"out_consensus_{name}_l0.4_k2.safetensors")
    served = CONSENSUS[name](vectors, mask_lambda=0.4, min_tasks=2)["task2"]
    assert set(served) == set(golden)
    for layer, there in golden.items():
        apart = (served[layer].double() - there.double()).norm()
        assert apart <= 1e-5 * (there.double().norm() or 1), layer
