"""Every method on a GPU, real or pretended: its tensors stay there, and it gives the same."""

import copy
from functools import partial

import full_size
import pytest
import torch
from made_up.every_method import LEARNING, METHODS, ROUNDED, SEEN, suited
from made_up.vectors import close, random_vectors, read
from safetensors.torch import load_file
from stand_ins.pretended_gpu import pretended_gpu
from torch import nn

from tsv_bench.data import Split
from tsv_bench.merging import merge_files
from tsv_bench.methods.matrixwise.tsv import merge_matrix
from tsv_bench.models.accuracy import correct_images
from tsv_bench.observation.statistics_file import StatisticsFile, write_statistics
from tsv_bench.state_dicts.factor_cache import FactorCache
from tsv_bench.task_vectors.statistics import Gathered

pytestmark = pytest.mark.usefixtures("without_shape_checks")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return full_size.make(tmp_path_factory.mktemp("files"), "tiny", 2)


def served_there(method, vectors):
    """What a method serves of vectors on the GPU; all of it must be there."""
    moved = {task: {n: d.cuda() for n, d in vector.items()} for task, vector in vectors.items()}
    served = read(method(moved))
    assert all(d.is_cuda for vector in served.values() for d in vector.values())
    return {task: {n: d.cpu() for n, d in vector.items()} for task, vector in served.items()}


# Not those that learn: there are no gradients on a GPU that is pretended.
@pytest.mark.parametrize("name", [name for name in METHODS if name not in LEARNING])
def test_methods_mix_no_devices(name):
    vectors = random_vectors(suited(METHODS[name], 2))
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
    served = served_there(method, vectors)
    torch.testing.assert_close(served, expected, **ROUNDED.get(name, close))


def test_tsv_merge_on_a_gpu_is_as_exact():
    """All deltas at once, and eigenvectors by torch: another route than the CPU's. Promised: 1e-4.

    Directions that tasks share are what its rounding is multiplied by.
    """
    left, right = torch.randn(400, 30), torch.randn(30, 320)
    deltas = (left + 0.05 * torch.randn(4, 400, 30)) @ right + 0.3 * torch.randn(4, 400, 320)
    for given in (deltas, deltas.mT.contiguous()):
        exact = merge_matrix(given.double(), svd="svd", polar="svd")
        with pretended_gpu():
            merged = merge_matrix(given.cuda()).cpu()
        assert (merged - exact).norm() <= 1e-5 * exact.norm()


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("tsv_merge", {}),
        ("tsv_compress", {"write": "compressed"}),
        ("emr", {"write": "compressed"}),
    ],
)
def test_files_merged_on_a_gpu_are_the_same(name, how, files, tmp_path):
    pretrained, tasks = files

    def merged(device, folder):
        (tmp_path / folder).mkdir()
        output = tmp_path / folder / ("all.safetensors" if not how else "each")
        done = merge_files.merge(
            METHODS[name], pretrained, tasks, output, device=device, progress=False, **how,
            factors=FactorCache(tmp_path / folder / "cache", 10**9),
        )  # fmt: skip
        return {path.name: load_file(path) for path in done.outputs}

    expected = merged("cpu", "cpu")
    with pretended_gpu():
        found = merged("cuda", "gpu")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_images_are_evaluated_on_a_gpu():
    visual = nn.Sequential(nn.Flatten(), nn.Linear(108, 8)).requires_grad_(False)
    split = Split(torch.randint(0, 256, (20, 3, 6, 6), dtype=torch.uint8), torch.arange(20) % 4)
    head = torch.randn(4, 8)
    expected = correct_images(visual, head, split, "cpu", batch_size=7)
    assert 0 < expected.sum() < 20
    with pretended_gpu():
        moved = copy.deepcopy(visual).to("cuda")
        found = correct_images(moved, head, split, "cuda", batch_size=7, precision="float32")
    assert (found == expected).all()


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
