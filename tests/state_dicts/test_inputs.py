"""What the checkpoints of one command are to each other."""

import shutil

import pytest
from made_up.merges import files, made, same, write_checkpoints
from made_up.state_dicts import save

from tsv_bench.state_dicts.inputs import open_inputs


def test_a_checkpoint_that_is_given_twice_is_named(tmp_path, caplog):
    write_checkpoints(tmp_path)
    made(tmp_path, "weight_average", "out.safetensors")
    assert "same checkpoint" not in caplog.text
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "c.safetensors")
    made(tmp_path, "weight_average", "twice.safetensors", tuned=files(("a", "b", "c")))
    assert caplog.text.count("a and c are the same checkpoint: it counts 2 times.") == 1


def test_the_ancestor_of_an_instruct_model_may_have_a_prefix(tmp_path):
    states = write_checkpoints(tmp_path)
    inputs = [tmp_path / "base.safetensors", {"a": tmp_path / "a.safetensors"}, "cpu"]
    save(states["b"], tmp_path / "plain.safetensors")
    save({f"module.{n}": t for n, t in states["b"].items()}, tmp_path / "moved.safetensors")
    plain, moved = (
        dict(open_inputs(*inputs, tmp_path / f"{name}.safetensors").instruction)
        for name in ("plain", "moved")
    )
    same(moved, plain)
    del states["b"]["frozen"]
    save(states["b"], tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match="different parameters: 1 appear in only one of them"):
        open_inputs(*inputs, tmp_path / "part.safetensors")
