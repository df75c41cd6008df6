"""Every method on a GPU, real or pretended: its tensors stay there, and it gives the same."""

from functools import partial

import pytest
import torch
from made_up.every_method import LEARNING, METHODS, SEEN, suited
from made_up.vectors import close, random_vectors, read
from stand_ins.pretended_gpu import pretended_gpu

from tsv_bench.observation.statistics_file import StatisticsFile, write_statistics
from tsv_bench.task_vectors.statistics import Gathered

pytestmark = pytest.mark.usefixtures("without_shape_checks")


def served_there(method, vectors):
    """What a method serves of vectors on the GPU; all of it must be there."""
    moved = {task: {n: d.cuda() for n, d in vector.items()} for task, vector in vectors.items()}
    served = read(method(moved))
    assert all(d.is_cuda for vector in served.values() for d in vector.values())
    return {task: {n: d.cpu() for n, d in vector.items()} for task, vector in served.items()}


# Not those that learn: there are no gradients on a GPU that is pretended.
@pytest.mark.parametrize("name", [name for name in METHODS if name not in LEARNING])
def test_methods_mix_no_devices(name):
    vectors = random_vectors(suited(METHODS[name], 3))
    expected = read(METHODS[name](vectors))
    with pretended_gpu():
        served = served_there(METHODS[name], vectors)
    torch.testing.assert_close(served, expected, **close)


@pytest.mark.gpu
@pytest.mark.parametrize("name", METHODS)
def test_methods_run_where_their_vectors_are(name):
    method, vectors = METHODS[name], random_vectors(suited(METHODS[name], 3))
    expected = read(method(vectors))
    if "bench" in getattr(method, "keywords", {}):
        method = partial(method, bench=SEEN["bench"].on("cuda"))
    torch.testing.assert_close(served_there(method, vectors), expected, **close)


def test_statistics_are_written_from_where_they_were_summed(tmp_path):
    with pretended_gpu():
        total = torch.eye(3).cuda()
        write_statistics(
            tmp_path / "a.safetensors", "inputs", {"proj": Gathered(5)}, {"proj": (3, 3)},
            {"proj": total}.__getitem__, {},
        )  # fmt: skip
    torch.testing.assert_close(StatisticsFile(tmp_path / "a.safetensors")["proj"], torch.eye(3))


def test_the_pretended_gpu_refuses_what_a_real_one_refuses():
    with pretended_gpu():
        there, here = torch.ones(3, 4, device="cuda"), torch.ones(3, 4)
        assert (there @ there.mT).is_cuda and not there.cpu().is_cuda
        assert torch.tensor([1.0, 2.0], device="cuda").is_cuda and there.new_tensor([1.0]).is_cuda
        assert (there + torch.tensor(1.0)).is_cuda and there[torch.tensor([0, 2])].is_cuda
        assert not there.new_zeros(3, device="cpu").is_cuda
        for mixed in (lambda: there + here, lambda: here[torch.tensor([0], device="cuda")]):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        with pytest.raises(RuntimeError, match="pointer"):
            there.data_ptr()
        assert there.mul_(2).sum().item() == 24 == there.copy_(2 * here).sum().item()
