"""Singular triplets on disk: reading them back, damaged entries, eviction."""

import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stand_ins.disk import read_only

from tsv_bench.state_dicts import safetensors_file
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.state_dicts.open_vectors import cache_key

PLENTY = 10**9  # bytes


def triplets(rank, pieces=2, m=9, n=7):
    return torch.randn(pieces, m, rank), torch.rand(pieces, rank), torch.randn(pieces, rank, n)


def recall(cache, rank, layer="layer", *, pair="pair", kind="gram", shape=(2, 9, 7)):
    """By default what `triplets` makes."""
    return cache.recall(pair, layer, kind, rank, shape)


def leading(parts, rank):
    u, s, vh = parts
    return u[..., :rank], s[..., :rank], vh[..., :rank, :]


def same(found, expected):
    return found is not None and all(map(torch.equal, found, expected))


def entries(folder):
    return sorted(folder.glob("*/*.safetensors"))


@pytest.fixture
def cache(tmp_path):
    return FactorCache(tmp_path / "factors", PLENTY)


def again(cache):
    """A cache as another process opens it."""
    return FactorCache(cache.folder, cache.max_bytes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_smaller_rank_is_the_prefix(cache, pieces, dtype):
    kept = tuple(part.to(dtype) for part in triplets(6, pieces))
    cache.keep("pair", "layer", "gram", kept)
    for reader in (cache, again(cache)):
        for rank in (1, 5, 6):
            assert same(recall(reader, rank, shape=(pieces, 9, 7)), leading(kept, rank))
        assert recall(reader, 7, shape=(pieces, 9, 7)) is None


def test_a_larger_rank_replaces_and_a_smaller_one_does_not(cache):
    kept = triplets(3), triplets(5), triplets(4)
    for parts in kept:
        cache.keep("pair", "layer", "gram", parts)
    assert len(entries(cache.folder)) == 1
    for reader in (cache, again(cache)):
        assert same(recall(reader, 5), kept[1])
        assert same(recall(reader, 4), leading(kept[1], 4))


def test_pairs_layers_and_kinds_do_not_mix(cache):
    keys = [(p, n, k) for p in "ab" for n in ("layer", "layer.0") for k in ("gram", "svd-split")]
    kept = {key: triplets(2) for key in keys}
    for key, parts in kept.items():
        assert cache.recall(*key, 1, (2, 9, 7)) is None
        cache.keep(*key, parts)
    assert all(same(cache.recall(*key, 2, (2, 9, 7)), parts) for key, parts in kept.items())
    assert cache_key("a", "b") != cache_key("b", "a") != cache_key("b")


def flipped(content, position):
    return content[:position] + bytes([content[position] ^ 0x20]) + content[position + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "cut in the header": lambda content: content[:100],
    "cut in the data": lambda content: content[:-5],
    "longer": lambda content: content + b"\0",
    "first byte": lambda content: flipped(content, 0),
    "a byte of the data": lambda content: flipped(content, len(content) - 30),
    "another type": lambda content: content.replace(b'"F32"', b'"I32"'),
    "other metadata": lambda content: content.replace(b"checksums", b"checksum_"),
    "no json": lambda content: content.replace(b'checksums":"{', b'checksums":"['),
    "other names": lambda content: content.replace(b'"0.s"', b'"0.t"'),
    "no safetensors": lambda content: b"PK\3\4" + bytes(400),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_entries_are_dropped_with_a_warning(cache, damage, caplog):
    cache.keep("pair", "layer", "gram", triplets(4))
    (path,) = entries(cache.folder)
    content = path.read_bytes()
    path.write_bytes(DAMAGES[damage](content))
    assert path.read_bytes() != content
    reader = again(cache)
    assert recall(reader, 2) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'layer' are damaged, computing them again" in caplog.text
    new = triplets(2)  # of a lower rank than what was damaged
    reader.keep("pair", "layer", "gram", new)
    assert same(recall(again(cache), 2), new)
    assert len(caplog.records) == 1


def test_no_flipped_byte_goes_unnoticed_or_changes_nothing(cache, caplog):
    kept = triplets(2, 1, 3, 2)
    cache.keep("pair", "layer", "gram", kept)
    (path,) = entries(cache.folder)
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(flipped(content, position))
        found = recall(again(cache), 2, shape=(1, 3, 2))
        # None or the right triplets, as where spaces pad the header.
        assert found is None or same(found, kept), position
        assert (found is None) == (len(caplog.records) == 1), position
        caplog.clear()


def test_crafted_entries_are_read_by_their_shapes(cache):
    """Metadata that promise more than the tensors hold do not make it read beyond them."""
    cache.keep("pair", "layer", "gram", triplets(2))
    (path,) = entries(cache.folder)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | {"rank": "4", "pieces": "3"}
    save_file(load_file(path), path, metadata)
    assert recall(again(cache), 3) is None
    assert recall(again(cache), 2)[0].shape[0] == 2


def test_folder_stays_within_its_bound_and_loses_what_was_used_longest_ago(tmp_path):
    folder = tmp_path / "factors"
    cache = FactorCache(folder, PLENTY)
    cache.keep("pair", "0", "gram", triplets(4))
    size = entries(folder)[0].stat().st_size
    cache = FactorCache(folder, 5 * size + 50)
    for i in range(1, 5):
        cache.keep("pair", str(i), "gram", triplets(4))
    for age, path in enumerate(sorted(entries(folder), key=os.path.getmtime, reverse=True)):
        os.utime(path, (0, path.stat().st_mtime - 1000 * (1 + age)))
    assert recall(cache, 1, "0")  # the oldest, used again
    for i in range(5, 8):
        cache.keep("pair", str(i), "gram", triplets(4))
    assert len(entries(folder)) == 5
    left = [i for i in range(8) if recall(cache, 4, str(i))]
    assert left == [0, 4, 5, 6, 7]


def test_entry_larger_than_the_bound_is_not_kept(tmp_path, caplog):
    cache = FactorCache(tmp_path, 100)
    for _ in range(2):
        cache.keep("pair", "layer", "gram", triplets(4))
        assert entries(tmp_path) == [] and recall(cache, 4) is None
    assert caplog.text == ""


def test_an_entry_that_is_replaced_while_it_is_opened_is_whole(tmp_path, monkeypatch, caplog):
    """Another process writes a higher rank between the steps of opening the file."""
    low, high = triplets(2), triplets(4)
    cache = FactorCache(tmp_path, PLENTY)
    cache.keep("pair", "layer", "gram", low)
    opened = safetensors_file.safe_open

    def replaced_meanwhile(*args, **kwargs):
        monkeypatch.setattr(safetensors_file, "safe_open", opened)
        FactorCache(tmp_path, PLENTY).keep("pair", "layer", "gram", high)
        return opened(*args, **kwargs)

    monkeypatch.setattr(safetensors_file, "safe_open", replaced_meanwhile)
    found = recall(FactorCache(tmp_path, PLENTY), 2)
    for part, expected in zip(found, low, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=0)
    assert "damaged" not in caplog.text


def test_an_entry_that_is_removed_while_it_is_opened_is_not_there(tmp_path, monkeypatch, caplog):
    cache = FactorCache(tmp_path, PLENTY)
    cache.keep("pair", "layer", "gram", triplets(2))
    [entry] = tmp_path.rglob("*.safetensors")

    def removed_meanwhile(path, **kwargs):
        entry.unlink()
        # What safe_open raises if the file is removed after it has read the header.
        torch.UntypedStorage.from_file(str(path), False, 1)

    monkeypatch.setattr(safetensors_file, "safe_open", removed_meanwhile)
    assert recall(FactorCache(tmp_path, PLENTY), 2) is None
    assert not caplog.text


@pytest.mark.parametrize("change", ["layer", "kind", "pair", "shape", "pieces"])
@pytest.mark.parametrize("older", [False, True])
def test_factors_of_something_else_are_not_taken(cache, change, older, caplog):
    """Whole files in the place of others, as after a wrong copy; older ones name the layer only."""
    own = ["pair", "layer", "gram"]
    other, m, pieces = list(own), 8 if change == "shape" else 9, 1 if change == "pieces" else 2
    if change in ("pair", "layer", "kind"):
        other[["pair", "layer", "kind"].index(change)] = "other"
    cache.keep(*own, triplets(1))
    (path,) = entries(cache.folder)
    source = again(cache)
    source.folder = cache.folder / "source"
    source.keep(*other, triplets(2, pieces, m))
    (of_other,) = entries(source.folder)
    if older:
        with safe_open(of_other, "pt") as file:
            metadata = {k: v for k, v in file.metadata().items() if k not in ("kind", "pair")}
        save_file(load_file(of_other), of_other, metadata)
    of_other.rename(path)
    if older and change in ("kind", "pair"):
        assert recall(again(cache), 2) is not None  # there is nothing to tell it by
        return
    assert recall(again(cache), 2) is None
    assert "the cached factors of 'layer' are damaged, computing them again" in caplog.text
    assert not path.exists()


def test_values_without_vectors_are_recalled(cache):
    s = torch.rand(2, 4)
    cache.keep("pair", "layer", "values", (s.new_empty(2, 0, 4), s, s.new_empty(2, 4, 0)))
    assert torch.equal(recall(again(cache), 4, kind="values")[1], s)


def test_a_pipe_in_place_of_an_entry_is_not_waited_for(cache, caplog):
    cache.keep("pair", "layer", "gram", triplets(1))
    (path,) = entries(cache.folder)
    path.unlink()
    os.mkfifo(path)
    assert recall(again(cache), 1) is None
    assert "no regular file" in caplog.text and not path.exists()


def test_a_complete_cache_that_may_only_be_read_is_used(cache, monkeypatch, caplog):
    kept = triplets(3)
    cache.keep("pair", "layer", "gram", kept)
    read_only(monkeypatch, cache.folder)
    assert same(recall(again(cache), 2), leading(kept, 2))
    assert not caplog.text
