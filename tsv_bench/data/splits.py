"""Which rows of a data set's train split are validated on: the paper's rule."""

import torch
from torch import Tensor

MAX_VAL = 5000  # images


def num_val(num_images: int) -> int:
    """Images that are set aside of a train split: a tenth, at most 5,000."""
    return min(num_images // 10, MAX_VAL)


def train_and_val_rows(num_images: int) -> tuple[Tensor, Tensor]:
    """Rows of the train split that are trained and validated on, in the reference's order.

    The reference calls torch's ``random_split`` with a generator of seed 0, which cuts this
    permutation in two; for 60,000 images the first row to train on is 36044.
    """
    rows = torch.randperm(num_images, generator=torch.Generator().manual_seed(0))
    num_train = num_images - num_val(num_images)
    return rows[:num_train], rows[num_train:]
