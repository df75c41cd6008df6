"""open_clip is imported without the libraries that only other towers need."""

import subprocess
import sys

SLOW = ("timm", "transformers", "torch._dynamo", "wandb", "sklearn", "datasets", "matplotlib")
IMPORT = """
import tsv_bench.models, tsv_bench.cli.work.bench, sys
print(*sorted(sys.modules))
tsv_bench.models.build_mini("mini", 9)
print(*sorted(sys.modules))
"""
COMPILER = """
from tsv_bench.models.quick_import import open_clip, torchvision
import sys
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


def output_of(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_a_benchmark_starts_without_them():
    before, after = (line.split() for line in output_of(IMPORT).stdout.splitlines())
    assert "open_clip" not in before and "open_clip" in after
    assert not [name for name in SLOW if name in after]


def test_they_can_be_imported_afterwards():
    lines = output_of(COMPILER).stdout.splitlines()
    assert lines[0].startswith("True")
    assert lines[1] == "torch.Size([1, 1, 2, 2])"
