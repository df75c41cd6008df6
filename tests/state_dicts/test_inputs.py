"""What the checkpoints of one command are to each other."""

import shutil

from made_up.merges import files, made, write_checkpoints


def test_a_checkpoint_that_is_given_twice_is_named(tmp_path, caplog):
    write_checkpoints(tmp_path)
    made(tmp_path, "weight_average", "out.safetensors")
    assert "same checkpoint" not in caplog.text
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "c.safetensors")
    made(tmp_path, "weight_average", "twice.safetensors", tuned=files(("a", "b", "c")))
    assert caplog.text.count("a and c are the same checkpoint: it counts 2 times.") == 1
