"""Which threads and devices the parts of a vector are computed by."""

import threading

import pytest
import torch
from stand_ins.pretended_gpu import pretended_gpu

from tsv_bench.task_vectors import lazy
from tsv_bench.task_vectors.merge import mean, merge_entries, merge_layers
from tsv_bench.task_vectors.streaming import gather, stream
from tsv_bench.task_vectors.task_vector import TaskVector


def test_an_entrywise_part_is_read_and_computed_by_one_thread_which_has_one_of_torchs():
    """Blocks run side by side; a parallel region within each would only wait for the others."""
    seen = []

    def rule(deltas):
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        return deltas.sum(dim=0)

    class Reads(TaskVector):
        def _subtract(self, *args):
            seen.append((threading.current_thread().name, torch.get_num_threads()))
            super()._subtract(*args)

    base = {"w": torch.zeros(4, 2**18)}
    vectors = [Reads(base, {"w": torch.ones(4, 2**18)}) for _ in range(2)]
    gather(stream(merge_entries(vectors, rule)))
    assert {threads for _, threads in seen} == {1}
    assert all(name.startswith("compute") for name, _ in seen)


@pytest.mark.parametrize("merge", [merge_entries, merge_layers])
def test_parts_go_round_the_devices(merge, monkeypatch):
    """Two names of the CPU stand for two GPUs."""
    monkeypatch.setattr(lazy, "BLOCK", 64)
    base = {f"layer{i}": torch.zeros(8, 8) for i in range(6)}
    tuned = {name: torch.randn(8, 8) for name in base}
    alone = gather(stream(merge([TaskVector(base, tuned)], mean)))
    used = []

    class Placed(TaskVector):
        def _subtract(self, name, start, stop, out):
            used.append((name, start, self._device))
            super()._subtract(name, start, stop, out)

    vector = Placed(base, tuned, "cpu,cpu:0")
    together = gather(stream(merge([vector], mean)))
    assert all(torch.equal(together[name], alone[name]) for name in base)
    ordered = [device for _, _, device in sorted(used)]
    assert ordered == ["cpu", "cpu:0"] * (len(used) // 2)
    assert vector._device == "cpu"  # outside of parts the first


def test_a_layer_whose_parts_were_on_several_devices_is_on_the_first():
    """The CPU stands for a second GPU: torch joins no tensors of two devices."""
    with pretended_gpu():
        rows = [("w", 0, torch.ones(2, 3).cuda()), ("w", 2, torch.ones(4, 3))]
        with pytest.raises(RuntimeError, match="same device"):
            torch.cat([part for _, _, part in rows])
        [whole] = gather(rows).values()
        assert whole.is_cuda and whole.shape == (6, 3)
