"""Plain merges are those of mergekit: its own output, tests/golden/mergekit."""

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tsv_bench import methods

FILE = Path(__file__).parents[1] / "golden" / "mergekit" / "tensors.safetensors"
TASKS = ("code", "maths", "chat", "law")
OURS = {
    "method=weight_average": methods.weight_average,
    "method=task_arithmetic": methods.task_arithmetic,
    "method=ties method.density=0.25 method.scope=tensor": partial(
        methods.ties, density=0.25, scope="tensor"
    ),
    "method=ties method.density=0.25 method.scope=tensor method.merge=sum": partial(
        methods.ties, density=0.25, scope="tensor", merge="sum"
    ),
    "method=breadcrumbs method.density=0.5 method.outlier_fraction=0.125": partial(
        methods.breadcrumbs, density=0.5, outlier_fraction=0.125
    ),
    "method=dare_ta method.density=0.5": partial(methods.dare_ta, density=0.5, seed=0),
    "method=dare_ties method.density=0.5 method.trim_density=1": partial(
        methods.dare_ties, density=0.5, trim_density=1, seed=0
    ),
}


@pytest.fixture(scope="module")
def golden():
    """What stands before the colon of its key -> parameter -> tensor."""
    found = {}
    for key, tensor in load_file(FILE).items():
        role, _, name = key.rpartition(":")
        found.setdefault(role, {})[name] = tensor
    return found


def test_every_merge_of_the_golden_file_is_compared(golden):
    without_alpha = {role.partition(" alpha=")[0] for role in golden if role.startswith("method=")}
    assert without_alpha == set(OURS)


@pytest.mark.parametrize("arguments", OURS)
def test_merged_weights_are_mergekits(arguments, golden):
    base = golden["base"]
    vectors = {task: {n: golden[task][n] - base[n] for n in base} for task in TASKS}
    [role] = [r for r in golden if r.partition(" alpha=")[0] == arguments]
    alpha = float(role.partition(" alpha=")[2] or 1)
    served = OURS[arguments](vectors)["code"]
    for name, theirs in golden[role].items():
        ours = base[name] + alpha * served[name]
        change = (theirs - base[name]).abs().max()
        assert (ours - theirs).abs().max() <= 1e-5 * change, name
    # The scope is what makes it so: of whole vectors other entries are kept.
    if "scope" in arguments:
        other = partial(OURS[arguments], scope="vector")(vectors)["code"]
        assert any(not torch.equal(other[name], served[name]) for name in base)
