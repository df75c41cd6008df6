"""The type that is written, and whose tokenizer goes into a folder."""

import json

import pytest
import torch
from made_up.merges import made, merge, pretrained, write_checkpoints
from made_up.state_dicts import save_sharded
from stand_ins.commands import tsv

from tsv_bench.state_dicts.state_dict import open_state_dict


@pytest.fixture
def folder(tmp_path):
    write_checkpoints(tmp_path)
    for name, words in {"base": "old", "tuned": "new"}.items():
        save_sharded(tmp_path / name, content=pretrained())
        (tmp_path / name / "tokenizer.json").write_text(words)
        (tmp_path / name / "config.json").write_text('{"torch_dtype": "float32", "n": 1}')
    save_sharded(tmp_path / "tuned", content=dict(open_state_dict(tmp_path / "a.safetensors")))
    (tmp_path / "tuned" / "special_tokens_map.json").write_text("{}")
    return tmp_path


TUNED = {"a": "tuned", "b": "b.safetensors"}


def test_the_type_is_that_of_the_weights_and_the_configuration(folder):
    merge(folder, "out", "dtype=bfloat16", base="base", tuned=TUNED)
    [exact] = made(folder, "tsv_merge", "exact.safetensors", base="base", tuned=TUNED)
    found = open_state_dict(folder / "out")
    for name, tensor in exact.items():
        wanted = tensor.bfloat16() if tensor.is_floating_point() else tensor
        assert found.dtype(name) == wanted.dtype and torch.equal(found[name], wanted), name
    content = json.loads((folder / "out" / "config.json").read_text())
    assert content == {"torch_dtype": "bfloat16", "n": 1}
    merge(folder, "out", "overwrite=true", base="base", tuned=TUNED)
    assert '"float32"' in (folder / "out" / "config.json").read_text()


def test_a_vector_has_the_type_too(folder):
    merge(folder, "v.safetensors", "dtype=float16", "write=vector", base="base", tuned=TUNED)
    assert {t.dtype for t in open_state_dict(folder / "v.safetensors").values()} == {torch.float16}


def test_the_tokenizer_is_the_one_that_is_named(folder):
    merge(folder, "out", base="base", tuned=TUNED)
    assert (folder / "out" / "tokenizer.json").read_text() == "old"
    assert not (folder / "out" / "special_tokens_map.json").exists()
    merge(folder, "new", "tokenizer_from=a", base="base", tuned=TUNED)
    assert (folder / "new" / "tokenizer.json").read_text() == "new"
    assert (folder / "new" / "special_tokens_map.json").exists()
    assert "tokenizer_from: a" in (folder / "new" / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tokenizer_from=c"], "tokenizer_from=c is none of the tasks, which are a, b"),
        (["tokenizer_from=b"], "tokenizer_from=b: b.safetensors has no file of a tokenizer"),
        (["tokenizer_from=a", "output=o.safetensors"], "tokenizer_from=a: the output is a file"),
        (["dtype=int4"], "dtype='int4' is not a type that is written"),
    ],
)
def test_what_cannot_be(folder, arguments, message):
    paths = ["pretrained=base", "finetuned={a: tuned, b: b.safetensors}", "output=out"]
    result = tsv(folder, "merge", *paths, *arguments)
    assert result.code == 1 and message in result.err, result.err
