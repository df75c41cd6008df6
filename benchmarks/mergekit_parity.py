"""Merges that mergekit defines in the same way, beside mergekit's own output. On request:

.venv/bin/python benchmarks/mergekit_parity.py PYTHON [GOLDEN]

PYTHON: one that has mergekit installed. GOLDEN: a file into which all tensors of smaller models go,
as tests/golden/mergekit has them. Makes small models of Qwen2's names in float32, merges them
by `tsv-merge` and by mergekit, and prints the largest difference of any weight from its merged
value, over the largest change that merging made; exits with 1 if one is above 1e-5. Shares of
entries are chosen so that both keep whole numbers of them: ours rounds up, mergekit down. DARE gets
our random choice; mergekit rescales by a layer's L1 norm, the paper and we by 1 / density.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import torch
from plain_merges import TASKS, check_mergekit, make, ours, theirs, timed
from safetensors.torch import load_file, save_file

from tsv_bench.methods.entrywise.dare import dropped

SIZES = {"layers": 2, "hidden": 64, "intermediate": 160, "vocabulary": 256, "keys": 32}
SMALLER = {"layers": 1, "hidden": 16, "intermediate": 24, "vocabulary": 32, "keys": 8}
BOUND = 1e-5
MERGES = {
    "method=weight_average": ("linear", {"weight": 1.0}, {}),
    "method=task_arithmetic alpha=0.3": ("task_arithmetic", {"weight": 0.3}, {"normalize": False}),
    "method=ties method.density=0.25 method.scope=tensor alpha=0.7": (
        "ties", {"weight": 1.0, "density": 0.25}, {"normalize": True, "lambda": 0.7}),
    "method=ties method.density=0.25 method.scope=tensor method.merge=sum alpha=0.7": (
        "ties", {"weight": 1.0, "density": 0.25}, {"normalize": False, "lambda": 0.7}),
    "method=breadcrumbs method.density=0.5 method.outlier_fraction=0.125 alpha=0.3": (
        "breadcrumbs", {"weight": 0.3, "density": 0.5, "gamma": 0.125}, {"normalize": False}),
    "method=dare_ta method.density=0.5 alpha=0.3": (
        "dare_linear", {"weight": 0.3, "density": 0.5}, {"normalize": False}),
    "method=dare_ties method.density=0.5 method.trim_density=1 alpha=0.7": (
        "dare_ties", {"weight": 1.0, "density": 0.5}, {"normalize": True, "lambda": 0.7}),
}  # fmt: skip
# Replaces mergekit's sparsification by what ours has kept of the same delta.
GIVEN = """
import hashlib, sys
from safetensors.torch import load_file
import mergekit.merge_methods.generalized_task_arithmetic as arithmetic
kept = load_file(sys.argv.pop())
def given(tensor, density, method, **others):
    return kept[hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()]
arithmetic.sparsify = given
from mergekit.scripts.run_yaml import main
sys.exit(main())
"""


def weights(folder):
    """All weights of a model folder."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def keep_ours(models, path):
    """Write what our drop leaves of every delta, under the sha256 of the delta."""
    base = weights(models["base"])
    deltas = {
        task: {name: tensor - base[name] for name, tensor in weights(models[task]).items()}
        for task in TASKS
    }
    kept = {}
    for task, vector in dropped(deltas, 0.5, 0).items():
        for name, delta in deltas[task].items():
            kept[hashlib.sha256(delta.numpy().tobytes()).hexdigest()] = vector[name]
    save_file(kept, path)


def main(python, golden=None):
    check_mergekit(python)
    worst, tensors = 0.0, {}
    sizes = SMALLER if golden else SIZES
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = make(folder, torch.float32, delta=0.3, **sizes)
        keep_ours(models, folder / "kept.safetensors")
        base = weights(models["base"])
        for model, path in models.items():
            tensors |= {f"{model}:{name}": tensor for name, tensor in weights(path).items()}
        for key, tensor in load_file(folder / "kept.safetensors").items():
            tensors[f"kept:{key}"] = tensor
        print("| merge | largest difference, over the largest change |\n|-|-:|")
        for arguments, merge in MERGES.items():
            timed(ours(models, arguments, folder / "ours"), folder / "ours", keep=True)
            command = theirs(models, merge, folder / "theirs", python, "float32")
            if "dare" in arguments:
                command[2:3] = [GIVEN]
                command.append(str(folder / "kept.safetensors"))
            timed(command, folder / "theirs", keep=True)
            own, other = weights(folder / "ours"), weights(folder / "theirs")
            assert own.keys() == other.keys() == base.keys()
            change = max((other[name] - base[name]).abs().max() for name in base)
            difference = max((own[name] - other[name]).abs().max() for name in base)
            tensors |= {f"{arguments}:{name}": tensor for name, tensor in other.items()}
            worst = max(worst, float(difference / change))
            print(f"| {arguments} | {float(difference / change):.1e} |", flush=True)
    if golden:
        save_file(tensors, golden)
    return worst > BOUND


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
