"""Backbones: open_clip models, the image tower in one hand and the text tower in the other."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A pretrained CLIP: its image tower, and what is needed to make heads for it."""

    name: str
    label: str
    image_size: int  # pixels
    visual: nn.Module  # images [batch, 3, size, size], normalized, to features [batch, dim]
    fingerprint: str  # sha256 of the weights
    logit_scale: float  # exp of the learned log scale
    encode_text: Callable[[list[str]], Tensor]  # prompts to features [prompts, dim]
    release_text: Callable[[], None] = lambda: None  # forgets the text tower; encoding reads it
    text_fingerprint: Callable[[], str] = lambda: ""  # where `fingerprint` leaves its weights out

    @property
    def pretrained(self) -> dict[str, Tensor]:
        """The image tower's parameters by name; shared, not copied."""
        return self.visual.state_dict()

    def to_pixels(self, image: Image.Image) -> Tensor:
        """open_clip's geometry (shortest side, bicubic, center crop): uint8 [3, size, size].

        In its order: colors are converted last, which a palette or transparency can tell.
        """
        image = v2.functional.resize(image, [self.image_size], v2.InterpolationMode.BICUBIC)
        image = v2.functional.center_crop(image, [self.image_size, self.image_size])
        return v2.functional.pil_to_tensor(image.convert("RGB"))


def normalize(pixels: Tensor) -> Tensor:
    """uint8 [batch, 3, size, size] to float32, with OpenAI CLIP's channel means and deviations."""
    mean = torch.tensor(OPENAI_DATASET_MEAN, device=pixels.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(OPENAI_DATASET_STD, device=pixels.device).view(1, 3, 1, 1) * 255
    return (pixels.float() - mean) / std
