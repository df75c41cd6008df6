"""An image tower that is run with other weights than its own, wherever these are."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.func import functional_call


def features_with(visual: nn.Module, weights: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Return the features of normalized images, on their device, by a tower with these weights.

    What a tower computes when it is built, as rotary positions, is in no file. It is moved there.
    """
    computed = {name: buffer.to(images.device) for name, buffer in visual.named_buffers()}
    return functional_call(visual, computed | dict(weights), (images,))
