"""Merging with a factor cache: each layer is decomposed once, and the result is the same."""

import errno
import os
import resource
from pathlib import Path

import made_up.factors
import pytest
import torch
from made_up.factors import FRACTIONS, MATRICES, vectors
from safetensors import SafetensorError
from safetensors.torch import load_file
from stand_ins.processes import SERVER, Started

from tsv_bench import methods
from tsv_bench.methods.matrixwise import decomposition
from tsv_bench.state_dicts import factor_cache
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.state_dicts.safetensors_file import SafetensorsFile

PLENTY = 10**9  # bytes
# The leading triplets of a decomposition at a higher rank differ from those at a lower one by
# rounding, 1e-7 in float32. The polar factor multiplies that by a condition number, here up to 30.
near = {"rtol": 0, "atol": 1e-5}


@pytest.fixture
def folder(tmp_path):
    made_up.factors.write(tmp_path)
    return tmp_path


@pytest.fixture
def cache(folder):
    return FactorCache(folder / "factors", PLENTY)


@pytest.fixture
def decomposed(monkeypatch):
    """(tasks, rank) of every decomposition so far."""
    calls, truncated_svd = [], decomposition.truncated_svd

    def counted(matrices, rank, via):
        calls.append((len(matrices), rank))
        return truncated_svd(matrices, rank, via)

    monkeypatch.setattr(decomposition, "truncated_svd", counted)
    return calls


def merged(folder, tasks, factors=None, **knobs):
    served = methods.tsv_merge(vectors(folder, tasks, factors), **knobs)
    return dict(served[str(tasks[0])].items())


def compressed(folder, tasks, factors=None, **knobs):
    served = methods.tsv_compress(vectors(folder, tasks, factors), **knobs)
    return {task: dict(vector.items()) for task, vector in served.items()}


def num_tasks(decomposed):
    """Return how many matrices were decomposed, over all tasks."""
    total = sum(tasks for tasks, _ in decomposed)
    decomposed.clear()
    return total


def test_more_tasks_decompose_the_new_ones_only(folder, cache, decomposed):
    merged(folder, [0, 1], cache)
    assert num_tasks(decomposed) == 2 * MATRICES
    found = merged(folder, [0, 1, 2, 3], cache)
    assert num_tasks(decomposed) == 2 * MATRICES  # of tasks 2 and 3
    torch.testing.assert_close(found, merged(folder, [0, 1, 2, 3]), **near)
    decomposed.clear()
    found = merged(folder, [3, 2], cache)  # they need a higher rank than they have
    assert num_tasks(decomposed) == 2 * MATRICES
    torch.testing.assert_close(found, merged(folder, [3, 2]), **near)
    decomposed.clear()
    for tasks in ([0, 1, 2, 3], [1, 3], [2, 1, 0]):
        merged(folder, tasks, cache)
    assert num_tasks(decomposed) == 0


def test_compressing_after_merging_decomposes_nothing(folder, cache, decomposed):
    merged(folder, [0, 1, 2], cache)
    assert num_tasks(decomposed) == 3 * MATRICES
    for fraction in (None, 1 / 3, 0.2, 0.05):
        found = compressed(folder, [0, 1, 2], cache, rank_fraction=fraction)
        assert decomposed == []
        expected = compressed(folder, [0, 1, 2], rank_fraction=fraction)
        torch.testing.assert_close(found, expected, **near)
        decomposed.clear()


def test_sweep_from_the_largest_fraction_decomposes_once(folder, cache, decomposed):
    for fraction in reversed(FRACTIONS):
        found = compressed(folder, [0, 1, 2], cache, rank_fraction=fraction)
        assert num_tasks(decomposed) == (3 * MATRICES if fraction == 0.5 else 0)
        expected = compressed(folder, [0, 1, 2], rank_fraction=fraction)
        torch.testing.assert_close(found, expected, **near)
        decomposed.clear()


def test_sweep_upwards_decomposes_once_if_the_cache_looks_ahead(folder, decomposed):
    cache = FactorCache(folder / "factors", PLENTY, ahead=0.5)
    for fraction in FRACTIONS:
        found = compressed(folder, [0, 1], cache, rank_fraction=fraction)
        assert num_tasks(decomposed) == (2 * MATRICES if fraction == 0.01 else 0)
        expected = compressed(folder, [0, 1], rank_fraction=fraction)
        torch.testing.assert_close(found, expected, **near)
        decomposed.clear()


def test_routes_and_policies_do_not_share_triplets(folder, cache, decomposed):
    kinds = [{"svd": svd, "split_qkv": split} for svd in ("gram", "svd") for split in (False, True)]
    for _ in range(2):
        for kind in kinds:
            found = merged(folder, [0, 1], cache, **kind)
            torch.testing.assert_close(found, merged(folder, [0, 1], **kind), **near)
    # Both rounds decompose without a cache, only the first with it.
    assert num_tasks(decomposed) == 3 * len(kinds) * 2 * MATRICES


def test_another_checkpoint_under_the_same_name_is_decomposed_anew(folder, cache, decomposed):
    merged(folder, [0, 1], cache)
    os.replace(folder / "2.safetensors", folder / "1.safetensors")
    decomposed.clear()
    found = merged(folder, [0, 1], cache)
    assert num_tasks(decomposed) == MATRICES
    torch.testing.assert_close(found, merged(folder, [0, 1]), **near)


def test_damaged_entries_do_not_reach_the_result(folder, cache, decomposed, caplog):
    expected = merged(folder, [0, 1], cache)
    paths = sorted(cache.folder.glob("*/*.safetensors"))
    assert len(paths) == 2 * (MATRICES + 1)  # and of the frozen layer
    content = [path.read_bytes() for path in paths]
    for path, whole in zip(paths, content, strict=True):
        path.write_bytes(whole[:-9] + bytes(9))
    decomposed.clear()
    found = merged(folder, [0, 1], FactorCache(cache.folder, PLENTY))
    assert num_tasks(decomposed) == 2 * MATRICES
    assert caplog.text.count("damaged, computing them again") == 2 * MATRICES
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    decomposed.clear()
    merged(folder, [0, 1], FactorCache(cache.folder, PLENTY))
    assert num_tasks(decomposed) == 0  # the entries are whole again


def check_it_goes_on_without(folder, cache, caplog, times=1):
    expected = merged(folder, [0, 1])
    for _ in range(2):
        torch.testing.assert_close(merged(folder, [0, 1], cache), expected, **near)
    assert caplog.text.count("going on without a factor cache") == times
    left = [path.name for path in folder.rglob("*") if "tmp" in path.name]
    assert left == [] and not list(folder.glob("factors/*/*.safetensors"))


def test_full_disk_is_gone_on_without(folder, cache, caplog):
    """A limit on file sizes stands for a full disk: the library raises the same error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        check_it_goes_on_without(folder, cache, caplog)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), SafetensorError("full")])
def test_failing_to_save_is_gone_on_without(folder, cache, caplog, monkeypatch, error):
    def save_file(tensors, path, metadata):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(factor_cache, "save_file", save_file)
    check_it_goes_on_without(folder, cache, caplog)


def test_folder_that_cannot_be_made_is_gone_on_without(folder, caplog):
    (folder / "file").write_text("in the way")
    check_it_goes_on_without(folder, FactorCache(folder / "file" / "deep", PLENTY), caplog)


def test_folder_of_another_user_is_read(folder, cache, decomposed, caplog, monkeypatch):
    expected = merged(folder, [0, 1], cache)
    (spoilt, *_) = sorted(cache.folder.glob("*/*.safetensors"))
    spoilt.write_bytes(b"damaged")

    def refused(*args, **kwargs):
        raise PermissionError(errno.EACCES, "not yours")

    monkeypatch.setattr(os, "utime", refused)
    monkeypatch.setattr(Path, "unlink", refused)
    monkeypatch.setattr(factor_cache, "replace_atomically", refused)
    decomposed.clear()
    found = merged(folder, [0, 1], FactorCache(cache.folder, PLENTY))
    torch.testing.assert_close(found, expected, **near)
    assert num_tasks(decomposed) <= 1
    assert caplog.text.count("damaged, computing them again") == 1
    assert caplog.text.count("going on without a factor cache") == 1


@pytest.mark.parametrize("max_bytes", [PLENTY, 30_000])  # 30 kB are a third of the entries
def test_two_processes_at_once_leave_whole_entries_and_right_results(folder, max_bytes):
    outputs, barrier = [folder / f"merged{i}" for i in range(2)], SERVER.Barrier(2)
    first, second = (
        Started(folder, made_up.factors.sweep, folder, max_bytes, output, barrier)
        for output in outputs
    )
    with first, second:
        codes = first.wait(), second.wait()
    errors = first.err, second.err
    assert codes == (0, 0), errors
    assert not [text for text in errors if "damaged" in text or "going on" in text]

    for output in outputs:
        found = load_file(output)
        for fraction in FRACTIONS:
            expected = merged(folder, range(4), rank_fraction=fraction)
            own = {name: found[f"{fraction} {name}"] for name in expected}
            torch.testing.assert_close(own, expected, **near)
    cache = FactorCache(folder / "factors", max_bytes)
    files = [path for path in cache.folder.rglob("*") if path.is_file()]
    assert files and all(path.suffix == ".safetensors" for path in files)
    for path in files:
        cache._check(path, SafetensorsFile(path))  # raises for damaged ones
    assert sum(path.stat().st_size for path in files) <= 1.05 * 2 * max_bytes
