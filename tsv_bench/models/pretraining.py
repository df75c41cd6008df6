"""Pretraining of the embedded backbone: a small CLIP on drawn images and their captions.

The corpus has plain and mixed images of every drawn task, whose captions name the class, and some
in the tasks' own style, most of whose captions do not. As on the web, the backbone gets to know how
the tasks look, but rarely how their classes look there. No scanned digit is in the corpus.
"""

import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tsv_bench import bars
from tsv_bench.data.embedded import GENERATORS, image_rng
from tsv_bench.models.training import batch_rows, step_generator

MAX_SHIFT = 2  # pixels by which a batch is moved
GREY = 0.15  # share of the images that lose their color


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What pretraining draws and says of one task."""

    name: str
    class_names: Sequence[str]
    captions: Sequence[str]  # with {} for the class name
    generic: Sequence[str]  # without the class


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How the corpus is mixed."""

    mixed: float  # of the images in mixed style
    task: float  # of the images in the tasks' style; the rest are plain
    named: float  # of the latter whose captions name the class


def draw_pair(subject: Subject, index: int, shares: Shares, seed: int) -> tuple[np.ndarray, str]:
    """Return image ``index`` of a subject in the corpus, uint8 [30, 30, 3], and its caption."""
    rng = image_rng("corpus", subject.name, seed, index)
    label = int(rng.integers(len(subject.class_names)))
    kind = rng.random()
    style = "task" if kind < shares.task else "mixed" if kind < shares.task + shares.mixed else ""
    named = style != "task" or rng.random() < shares.named
    captions = subject.captions if named else subject.generic
    caption = captions[rng.integers(len(captions))].format(subject.class_names[label])
    return GENERATORS[subject.name](rng, label, style or "plain"), caption


def draw_subject(job: tuple[Subject, int, Shares, int]) -> tuple[np.ndarray, list[str]]:
    """Return a subject's images, uint8 [images, 30, 30, 3], and captions; one job of a pool."""
    subject, num_images, shares, seed = job
    pairs = [draw_pair(subject, index, shares, seed) for index in range(num_images)]
    return np.stack([image for image, _ in pairs]), [caption for _, caption in pairs]


def draw_corpus(
    subjects: Sequence[Subject], num_images: int, shares: Shares, seed: int, processes: int = 2
) -> tuple[Tensor, list[str]]:
    """Draw ``num_images`` of every subject: uint8 [images, 3, 30, 30], and as many captions."""
    jobs = [(subject, num_images, shares, seed) for subject in subjects]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        drawn = list(
            bars.bar(pool.imap(draw_subject, jobs), total=len(jobs), desc="draw the corpus")
        )
    images = torch.from_numpy(np.concatenate([images for images, _ in drawn]))
    return images.permute(0, 3, 1, 2).contiguous(), [c for _, captions in drawn for c in captions]


def contrastive_loss(images: Tensor, texts: Tensor, captions: Tensor, scale: Tensor) -> Tensor:
    """Return CLIP's symmetric InfoNCE loss of features [batch, dim].

    ``captions`` are ids [batch]: all images with the same caption are positives of each other.
    """
    logits = scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    same = (captions[:, None] == captions[None]).float()
    target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def augment(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Shift a batch, make some of its images grey, warp and relight a ``share`` of them, add noise.

    Images are normalized, [batch, 3, size, size]. Each draws its own values but for the shift.
    """
    num = len(images)

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(num, generator=generator) * (high - low) + low
        return drawn.to(images.device)

    shift = torch.randint(-MAX_SHIFT, MAX_SHIFT + 1, (2,), generator=generator).tolist()
    images = torch.roll(images, shift, dims=(2, 3))
    grey = (uniform(0, 1) < GREY).float().view(-1, 1, 1, 1)
    images = torch.lerp(images, images.mean(dim=1, keepdim=True), grey)

    warped = (uniform(0, 1) < share).float()
    # Turns are in radians, moves in half widths of the image.
    turn, shear = uniform(-0.22, 0.22) * warped, uniform(-0.12, 0.12) * warped
    scale = 1 / (1 + uniform(-0.25, 0.12) * warped)
    cos, sin = turn.cos() * scale, turn.sin() * scale
    rows = (cos, shear - sin, uniform(-0.1, 0.1) * warped, sin, cos, uniform(-0.1, 0.1) * warped)
    grid = F.affine_grid(
        torch.stack(rows, dim=1).view(num, 2, 3), list(images.shape), align_corners=False
    )
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    gain, offset = 1 + uniform(-0.4, 0.2) * warped, uniform(-0.4, 0.4) * warped
    images = images * gain.view(-1, 1, 1, 1) + offset.view(-1, 1, 1, 1)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return images + (0.05 + uniform(0, 0.2) * warped).view(-1, 1, 1, 1) * noise


def make_loss(
    model: nn.Module,
    images: Tensor,
    captions: Sequence[str],
    tokens: Mapping[str, Tensor],
    normalize,
    *,
    batch_size: int,
    share: float,
    max_scale: float,
    seed: int,
):
    """Return the loss of a pretraining step as a function of the step.

    ``images`` are uint8 [images, 3, 30, 30], ``captions`` theirs. ``tokens`` maps a caption to its
    tokens [context]. ``share`` is that of `augment`, ``max_scale`` the largest logit scale.
    """
    distinct = sorted(set(captions))
    ids = {caption: i for i, caption in enumerate(distinct)}
    caption_ids = torch.tensor([ids[caption] for caption in captions])
    table = torch.stack([tokens[caption] for caption in distinct])
    device = next(model.parameters()).device

    def loss_at(step: int) -> Tensor:
        rows = batch_rows(len(images), batch_size, step, seed)
        batch = augment(normalize(images[rows].to(device)), share, step_generator(seed, step))
        present, inverse = caption_ids[rows].unique(return_inverse=True)
        texts = model.encode_text(table[present].to(device))[inverse.to(device)]
        scale = model.logit_scale.exp().clamp(max=max_scale)
        return contrastive_loss(model.encode_image(batch), texts, inverse.to(device), scale)

    return loss_at
