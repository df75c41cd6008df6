"""What experts add to the linear layers of a network, weighted for each image by gates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.bench import Linear

# (name of the layer's weight, inputs [images, tokens, n]) -> how much each expert counts
# [images, tasks]
Gates = Callable[[str, Tensor], Tensor]

# The linear layers of a residual block, by the ends of their weights' names in open_clip -> those
# of their biases.
LAYERS = {
    "in_proj_weight": "in_proj_bias",
    "out_proj.weight": "out_proj.bias",
    "c_fc.weight": "c_fc.bias",
    "c_proj.weight": "c_proj.bias",
}
MLP = ("c_fc.weight", "c_proj.weight")
BLOCK_PREFIX = "resblocks."


def is_linear(name: str, ends: tuple[str, ...] = tuple(LAYERS)) -> bool:
    """Return whether a weight is that of a linear layer with one of these ends."""
    return name.endswith(ends)


def bias_of(name: str) -> str:
    """Return the name of the bias beside a linear layer's weight."""
    end = next(end for end in LAYERS if name.endswith(end))
    return name.removesuffix(end) + LAYERS[end]


@dataclass(frozen=True)
class Experts:
    """Deltas of linear layers for all tasks: layer -> factors (up, down), or whole deltas.

    ``biases`` has what is added to the layer's outputs, by the name of its weight.
    """

    factors: Mapping[str, tuple[Float[Tensor, "tasks m r"], Float[Tensor, "tasks r n"]]] = field(
        default_factory=dict
    )
    deltas: Mapping[str, Float[Tensor, "tasks m n"]] = field(default_factory=dict)
    biases: Mapping[str, Float[Tensor, "tasks m"]] = field(default_factory=dict)

    def linear(self, gates: Gates) -> Linear:
        """Return what layers compute with experts that count as the gates say."""

        def run(name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            if name not in self.factors and name not in self.deltas:
                return F.linear(x, weight, bias)
            return self._run(name, x, weight, bias, gates(name, x).to(x.dtype))

        return run

    def _run(
        self, name: str, x: Tensor, weight: Tensor, bias: Tensor | None, gates: Tensor
    ) -> Tensor:
        if name in self.factors:
            up, down = self.factors[name]
            inner = torch.einsum("bkn,trn->bktr", x, down) * gates[:, None, :, None]
            out = F.linear(x, weight, bias) + torch.einsum("bktr,tmr->bkm", inner, up)
        else:  # an image's own matrix takes less than a product for each task
            deltas = self.deltas[name]
            own = torch.tensordot(gates, deltas, dims=1) + weight
            out = torch.matmul(x, own.mT)
            out = out if bias is None else out + bias
        return out + (gates @ self.biases[name])[:, None] if name in self.biases else out

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All of them, by the layer's name and what they are."""
        pairs = {name: {"up": up, "down": down} for name, (up, down) in self.factors.items()}
        whole = {name: {"delta": deltas} for name, deltas in self.deltas.items()}
        biases = {name: {"bias": of_layer} for name, of_layer in self.biases.items()}
        return {
            f"{name}.experts.{kind}": tensor
            for group in (pairs, whole, biases)
            for name, kinds in group.items()
            for kind, tensor in kinds.items()
        }

    def to(self, device: str) -> "Experts":
        """Return the same on a device."""
        return Experts(
            {n: (up.to(device), down.to(device)) for n, (up, down) in self.factors.items()},
            {name: deltas.to(device) for name, deltas in self.deltas.items()},
            {name: biases.to(device) for name, biases in self.biases.items()},
        )


class Noted:
    """Gates that also note what each layer's were, to tell the task of an image."""

    def __init__(self, gates: Gates) -> None:
        self._gates, self._found = gates, []

    def __call__(self, name: str, x: Tensor) -> Tensor:
        found = self._gates(name, x)
        self._found.append(found)
        return found

    def chosen(self) -> Tensor:
        """Return the task [images] that counts most, in the mean of all layers."""
        return torch.stack([found.float() for found in self._found]).mean(dim=0).argmax(dim=1)
