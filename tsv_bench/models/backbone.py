"""Backbones: CLIP models of open_clip, split into an image tower and a text tower."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from tsv_bench.escaping import check_name
from tsv_bench.models.quick_import import open_clip, torchvision


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A pretrained CLIP: its image tower, and what makes heads for it."""

    name: str
    label: str
    image_size: int  # pixels
    visual: nn.Module  # makes normalized images [batch, 3, size, size] features [batch, dim]
    fingerprint: str  # sha256 of the weights
    logit_scale: float  # exp of the learned log scale
    encode_text: Callable[[list[str]], Tensor]  # makes prompts features [prompts, dim]
    release_text: Callable[[], None] = lambda: None  # frees the text tower, until it is used again
    text_fingerprint: Callable[[], str] = lambda: ""  # "": `fingerprint` is of both towers

    def __post_init__(self) -> None:
        check_name(self.name, "the backbone's name")

    @property
    def pretrained(self) -> dict[str, Tensor]:
        """The image tower's parameters by name, not copied."""
        return self.visual.state_dict()

    def to_pixels(self, image: Image.Image) -> Tensor:
        """Resize the shorter side (bicubic), crop the center and return uint8 [3, size, size].

        As open_clip does, colors are converted last: with a palette or transparency the order
        matters.
        """
        geometry = torchvision.transforms.functional
        image = geometry.resize(
            image, [self.image_size], torchvision.transforms.InterpolationMode.BICUBIC
        )
        image = geometry.center_crop(image, [self.image_size, self.image_size])
        return geometry.pil_to_tensor(image.convert("RGB"))


def normalize(pixels: Tensor) -> Tensor:
    """Normalize uint8 pixels [batch, 3, size, size] to float32 by OpenAI CLIP's means and stds."""
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN, device=pixels.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(open_clip.OPENAI_DATASET_STD, device=pixels.device).view(1, 3, 1, 1) * 255
    return (pixels.float() - mean) / std
