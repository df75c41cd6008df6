"""The tensors that the code of arXiv:2412.00081 produced, and how far others are from them."""

from pathlib import Path

from safetensors.torch import load_file

GOLDEN = Path(__file__).with_name("tasks3")

# Task 2's tenth and eleventh singular values differ by 6e-4 of the first here, and truncation cuts
# between them: float32 SVDs of the layer (theirs, ours) are both 2e-5 to 4e-5 from float64.
NEARLY_CUT = "model.visual.transformer.resblocks.1.mlp.c_fc.weight"


def differences(served, golden):
    """|| served - golden || / || golden || of each parameter; absolute where golden is zero."""
    golden = load_file(GOLDEN / f"out_{golden}.safetensors")
    assert set(served) == set(golden)
    return {
        name: float((served[name].double() - there.double()).norm() / (there.norm().double() or 1))
        for name, there in golden.items()
    }
