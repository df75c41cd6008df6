"""open_clip is imported without the libraries that only other towers need."""

import subprocess
import sys

import pytest

SLOW = ("timm", "transformers", "torch._dynamo", "wandb", "sklearn", "datasets", "matplotlib")
IMPORT = """
import tsv_bench.models, tsv_bench.cli.work.bench, sys
print(*sorted(sys.modules))
tsv_bench.models.build_mini("mini", 9)
print(*sorted(sys.modules))
"""
COMPILER = """
from tsv_bench.models.quick_import import open_clip, torchvision
assert open_clip.CLIP and torchvision.ops and "open_clip" in sys.modules
assert not any(name in sys.modules for name in ("timm", "torch._dynamo", "torch._dynamo.utils"))
import torch, torch._dynamo, timm
print(torch._dynamo.utils.is_compile_supported("cpu"), torch.compile, timm.create_model)
from tsv_bench.models.quick_import import let_build_timm
let_build_timm()
open_clip.model.TimmModel("test_vit", 8, image_size=160)
from torchvision.ops import roi_align
print(roi_align(torch.ones(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 2, 2]]), 2).shape)
"""


@pytest.fixture(scope="module")
def lines():
    """What a new interpreter prints of one after the other; it imports for seconds."""
    code = [sys.executable, "-c", IMPORT + COMPILER]
    done = subprocess.run(code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_benchmark_starts_without_them(lines):
    before, after = (line.split() for line in lines[:2])
    assert "open_clip" not in before and "open_clip" in after
    assert not [name for name in SLOW if name in after]


def test_they_can_be_imported_afterwards(lines):
    assert lines[2].startswith("True")
    assert lines[3] == "torch.Size([1, 1, 2, 2])"
