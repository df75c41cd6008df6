"""BASE+ADAPTER as a whole checkpoint: pretrained, or fine-tuned from another base."""

import json

import pytest
import torch
from made_up.adapter_files import base, factors, write
from made_up.merges import merge, same
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import tsv_bench
from tsv_bench.files import sha256
from tsv_bench.merging import merge_files
from tsv_bench.methods import tsv_merge, weight_average
from tsv_bench.state_dicts.adapters.adapted import (
    base_and_adapter,
    open_checkpoint,
    same_checkpoint,
)
from tsv_bench.state_dicts.entries.choices import Choices
from tsv_bench.state_dicts.inputs import open_inputs

WEIGHT = "layers.0.q.weight"
EMBEDDING = "embed_tokens.weight"


def product(seed, scale=1.0):
    a, b = factors(seed=seed).values()
    return scale * (b @ a)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A base, another one, and three adapters."""
    for seed, task in enumerate("abc", start=1):
        write(tmp_path / task, factors(seed=seed))
    save_file({name: 2 * tensor for name, tensor in base().items()}, tmp_path / "other.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def averaged(pretrained, write="model", choices=Choices(), **tuned):  # noqa: B008, it is frozen
    merge_files.merge(
        weight_average, pretrained, tuned, "out.safetensors", write=write, choices=choices,
        overwrite=True, progress=False,
    )  # fmt: skip
    return load_file("out.safetensors")


def test_a_base_with_an_adapter_is_a_pretrained_checkpoint(folder):
    """As mergekit has it: deltas are what tasks have beyond it, whichever way they are given."""
    pretrained = "base.safetensors+a"
    start = base() | {WEIGHT: base()[WEIGHT] + product(1)}
    found = averaged(pretrained, b="base.safetensors+b", c="base.safetensors+c")
    expected = start | {WEIGHT: base()[WEIGHT] + (product(2) + product(3)) / 2}
    torch.testing.assert_close(found, expected)
    # An adapter alone, or upon the pretrained one by name, is added to it.
    found = averaged(pretrained, b="b", c="base.safetensors+a+c")
    expected = start | {WEIGHT: start[WEIGHT] + (product(2) + product(3)) / 2}
    torch.testing.assert_close(found, expected)
    vectors = open_inputs(pretrained, {"b": "b", "c": "base.safetensors+a+c"}).vectors
    assert [vector.factor_rank(WEIGHT) for vector in vectors.values()] == [2, 2]


def test_an_adapter_upon_another_base_is_a_whole_checkpoint(folder, caplog):
    caplog.set_level("INFO")
    found = averaged("base.safetensors", a="a", b="other.safetensors+b")
    expected = {name: 1.5 * tensor for name, tensor in base().items()}
    expected[WEIGHT] += (product(1) + product(2)) / 2
    torch.testing.assert_close(found, expected)
    assert "other.safetensors+b is read as a whole checkpoint" in caplog.text
    merged = tsv_bench.merge(
        "base.safetensors", {"a": "a", "b": "other.safetensors+b"}, method="weight_average"
    )
    same(merged, found)


def test_its_files_are_hashed_and_it_writes_a_folder_of_the_base(folder):
    (folder / "base").mkdir()
    (folder / "base.safetensors").rename(folder / "base" / "model.safetensors")
    (folder / "base" / "config.json").write_text("{}")
    (folder / "base" / "README.md").write_text("---\nlicense: mit\n---\n")
    merge(folder, "out", "method=weight_average", base="base+a", tuned={"b": "base+b", "c": "c"})
    with safe_open(folder / "out" / "model.safetensors", "pt") as file:
        hashes = json.loads(file.metadata()["tsv_bench"])["inputs"]
    files = [folder / "base" / "model.safetensors", *(folder / "a").iterdir()]
    assert hashes["pretrained"] == {path.name: sha256(path) for path in files}
    assert hashes["b"].keys() == hashes["pretrained"].keys()
    assert (folder / "out" / "config.json").read_text() == "{}"
    assert "license: mit" in (folder / "out" / "README.md").read_text()


def test_a_fine_tuned_one_is_not_rounded_to_its_base(folder):
    """In bfloat16 the sum of weights near 1 and a product of 1e-4 would be the weights."""
    for name in ("base", "other"):
        save_file({n: t.bfloat16() for n, t in base().items()}, folder / f"{name}.safetensors")
    small = {key: 0.01 * t for key, t in factors(seed=1).items()}
    save_file(small, folder / "a" / "adapter_model.safetensors")
    vectors = open_inputs("base.safetensors", {"a": "other.safetensors+a"}).vectors
    delta, (a, b) = vectors["a"][WEIGHT], small.values()
    torch.testing.assert_close(delta, b @ a, rtol=0, atol=1e-6)
    assert open_checkpoint("base.safetensors+a").dtype(WEIGHT) == torch.bfloat16


def test_adapters_beside_a_checkpoint_with_a_part_are_what_they_make_of_the_whole(folder):
    part = base()
    del part["norm.weight"]
    part[WEIGHT] += 1
    save_file(part, folder / "part.safetensors")
    only = Choices(shared_only=True)
    found = averaged("base.safetensors", choices=only, a="a", p="part.safetensors")
    expected = base()
    expected[WEIGHT] += (1 + product(1)) / 2
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("choice", ["truncate", "pad", "pretrained"])
def test_adapters_beside_more_tokens(folder, choice):
    more = base()
    more[EMBEDDING] = torch.cat([more[EMBEDDING] + 1, torch.ones(2, 4)])
    save_file(more, folder / "more.safetensors")
    choices = Choices(embeddings=choice)
    found = averaged("base.safetensors", choices=choices, a="a", m="more.safetensors")
    expected = base()
    expected[WEIGHT] += product(1) / 2
    if choice != "pretrained":
        expected[EMBEDDING] += 0.5
    if choice == "pad":  # rows of the task that has them
        expected[EMBEDDING] = torch.cat([expected[EMBEDDING], torch.ones(2, 4)])
    torch.testing.assert_close(found, expected)


def test_with_choices_that_change_nothing_adapters_keep_their_factors(folder):
    choices = Choices(shared_only=True, embeddings="truncate")
    vectors = open_inputs("base.safetensors", {"a": "a", "b": "b"}, choices=choices).vectors
    assert all(vector.factor_rank(WEIGHT) == 2 for vector in vectors.values())


def test_a_plus_may_be_a_letter_of_a_name(folder):
    assert base_and_adapter("b+a") == ("b", "a")
    (folder / "b+a").mkdir()
    assert base_and_adapter("b+a") is None and base_and_adapter("a+none") is None


def test_one_checkpoint_may_be_named_in_two_ways(folder):
    assert same_checkpoint("base.safetensors+a", f"{folder / 'base.safetensors'}+{folder / 'a'}")
    assert not same_checkpoint("base.safetensors+a", "base.safetensors+b")


def test_files_of_one_name_in_base_and_adapter_are_refused(folder):
    (folder / "x").mkdir()
    save_file(base(), folder / "x" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="both have a file 'adapter_model.safetensors'. Rename"):
        open_checkpoint("x/adapter_model.safetensors+a")


def test_what_is_no_base_or_no_adapter_is_refused(folder):
    for path, message in {
        "base.safetensors+other.safetensors": "is no adapter",
        "base.safetensors+a+b": "an adapter upon an adapter",
    }.items():
        with pytest.raises(ValueError, match=message):
            open_inputs("other.safetensors", {"t": path})
    with pytest.raises(ValueError, match="peft would not find"):
        merge_files.merge(
            tsv_merge, "base.safetensors+a", {"b": "b"}, "out", write="lora", rank=2,
            progress=False,
        )  # fmt: skip
