"""Steps of fine-tuning: in parts, in half precision, resumed after a kill, out of memory."""

from dataclasses import replace

import pytest
import torch
from made_up.finetuning import SETTINGS, source
from made_up.tasks import backbone, load, task
from safetensors.torch import load_file

from tsv_bench.checkpoints.checkpoint import load_record
from tsv_bench.models import finetuning


def weights(folder, stop=None, tower=None, **changes):
    """Return the fine-tuned weights; with ``stop`` training is killed before it and resumed."""
    tiny = replace(backbone(), visual=tower or backbone().visual)
    made = source(folder, finetuning=replace(SETTINGS, **changes), save_every=0)
    if stop is not None:

        def killed(num_rows, batch_size, step, seed):
            if step == stop:
                raise KeyboardInterrupt
            return batch_rows(num_rows, batch_size, step, seed)

        batch_rows = finetuning.batch_rows
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(finetuning, "batch_rows", killed)
            made.checkpoint(tiny, task(), load)
    return load_file(made.checkpoint(tiny, task(), load).path)


def test_accumulated_batches_give_the_same_weights_to_rounding(tmp_path):
    whole = weights(tmp_path)
    for accumulate in (2, 3, 16):
        parts = weights(tmp_path, accumulate=accumulate)
        for name, before in backbone().pretrained.items():
            moved = (whole[name] - before).norm()
            assert (parts[name] - whole[name]).norm() < 1e-4 * moved, (accumulate, name)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_and_the_weights_stay_float32(tmp_path, precision):
    tiny = backbone()
    computed = []
    tiny.visual.register_forward_hook(lambda module, _, out: computed.append(out.dtype))
    settings = replace(SETTINGS, precision=precision)
    found = source(tmp_path, finetuning=settings).checkpoint(tiny, task(), load)
    assert set(computed[:24]) == {getattr(torch, precision)}  # 24 steps; then it is evaluated
    assert set(computed[24:]) == {torch.float32}
    assert {tensor.dtype for tensor in load_file(found.path).values()} == {torch.float32}
    assert found.scores["test"].accuracy > 0.9


# Every way to compute a step; killed after the first, between any two, and before the last.
@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 3},
        {"precision": "bfloat16"},
        {"precision": "float16", "accumulate": 2},
    ],
    ids=str,
)
def test_killed_at_any_step_it_ends_with_the_same_bits(tmp_path, changes):
    whole = weights(tmp_path / "whole", **changes)
    for stop in (1, 10, 23):
        resumed = weights(tmp_path / f"killed{stop}", stop, **changes)
        assert all(torch.equal(resumed[name], whole[name]) for name in whole), stop


def test_out_of_memory_half_the_batch_at_a_time_is_tried_and_said(tmp_path, caplog):
    room = 8

    def look(module, args):
        if torch.is_grad_enabled() and len(args[0]) > room:
            raise torch.OutOfMemoryError("made up")

    tower = backbone().visual
    tower.register_forward_pre_hook(look)
    found = weights(tmp_path / "full", tower=tower)
    assert caplog.text.count("cpu is out of memory at 16 images; trying 8") == 1
    expected = weights(tmp_path / "asked", accumulate=2)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    [path] = (tmp_path / "full").rglob("tints-*.safetensors")
    assert load_record(path)["accumulate"] == 2

    room = 7
    with pytest.raises(ValueError, match="no memory to train on 16 or 8 .*accumulate=4: the same"):
        weights(tmp_path / "fuller", tower=tower)
