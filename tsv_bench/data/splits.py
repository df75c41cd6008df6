"""The paper's rule for taking validation images from a train split."""

import torch
from torch import Tensor

MAX_VAL = 5000  # images


def num_val(num_images: int) -> int:
    """Return how many of ``num_images`` are taken for validation: a tenth, at most 5,000."""
    return min(num_images // 10, MAX_VAL)


def train_and_val_rows(num_images: int) -> tuple[Tensor, Tensor]:
    """Return the rows of a train split to train on and to validate on, in the reference's order.

    The reference calls torch's ``random_split`` with a generator of seed 0, which cuts this
    permutation in two. Of 60,000 images the first to train on is row 36044.
    """
    rows = torch.randperm(num_images, generator=torch.Generator().manual_seed(0))
    num_train = num_images - num_val(num_images)
    return rows[:num_train], rows[num_train:]
