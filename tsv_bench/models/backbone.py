"""Backbones: CLIP models of open_clip, split into an image tower and a text tower."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from PIL import Image
from torch import Tensor, nn

from tsv_bench.models.quick_import import open_clip, torchvision
from tsv_bench.wording.escaping import check_name


@dataclass(frozen=True, kw_only=True)
class Named:
    """What a backbone is known by before it is built: by these a finished Run is found."""

    name: str
    label: str
    fingerprint: str  # sha256 of the weights

    def __post_init__(self) -> None:
        check_name(self.name, "the backbone's name")


@dataclass(frozen=True, kw_only=True)
class Backbone(Named):
    """A pretrained CLIP: its image tower, and what makes heads for it."""

    image_size: int  # pixels
    visual: nn.Module  # makes normalized images [batch, 3, size, size] features [batch, dim]
    logit_scale: float  # exp of the learned log scale
    encode_text: Callable[[list[str]], Tensor]  # makes prompts features [prompts, dim]
    release_text: Callable[[], None] = lambda: None  # frees the text tower, until it is used again
    interpolation: str = "bicubic"  # or "bilinear"
    resize_mode: str = "shortest"  # side, then the center is cropped; or "squash" to a square
    text_fingerprint: Callable[[], str] = lambda: ""  # "": `fingerprint` is of both towers

    @property
    def pretrained(self) -> dict[str, Tensor]:
        """The image tower's parameters by name, not copied."""
        return self.visual.state_dict()

    @property
    def geometry(self) -> str:
        """How images become pixels, if not as for OpenAI's CLIP: other pixels, another cache."""
        chosen = (self.resize_mode, self.interpolation)
        return "" if chosen == ("shortest", "bicubic") else "-".join(chosen)

    def to_pixels(self, image: Image.Image) -> Tensor:
        """Resize, crop the center and return uint8 [3, size, size].

        As open_clip does, colors are converted last: with a palette or transparency the order
        matters.
        """
        geometry, size = torchvision.transforms.functional, [self.image_size, self.image_size]
        image = geometry.resize(
            image,
            size if self.resize_mode == "squash" else size[:1],
            torchvision.transforms.InterpolationMode(self.interpolation),
        )
        image = geometry.center_crop(image, size)
        return geometry.pil_to_tensor(image.convert("RGB"))


def normalize(pixels: Tensor, visual: nn.Module | None = None) -> Tensor:
    """Normalize uint8 pixels [batch, 3, size, size] to float32, as the image tower takes them.

    By its ``image_mean`` and ``image_std``, as open_clip calls them, else by OpenAI CLIP's.
    """
    mean = tuple(getattr(visual, "image_mean", open_clip.OPENAI_DATASET_MEAN))
    std = tuple(getattr(visual, "image_std", open_clip.OPENAI_DATASET_STD))
    mean, std = _mean_and_std(pixels.device, mean, std)
    return (pixels.float() - mean) / std


@cache  # a copy of numbers to a GPU waits for all that is queued there
@torch.inference_mode(False)
def _mean_and_std(device: torch.device, *both: tuple[float, ...]) -> list[Tensor]:
    """Return the mean and the standard deviation of pixels, each [1, 3, 1, 1]."""
    return [torch.tensor(of_channels).view(1, 3, 1, 1).mul(255).to(device) for of_channels in both]
