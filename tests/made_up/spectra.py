"""Layers of every kind of spectrum, in float32, and their merge by its definition in float64."""

import torch
from made_up.vectors import randn
from torch.linalg import qr, svd

ZERO = 10 * torch.finfo(torch.float32).eps  # singular values that count as zero, of the largest


def layers(num_tasks, m, n, values, angle=1.0):
    """Tasks with these singular values, whose singular vectors are common but for ``angle``."""
    left, right = randn(m, len(values)) / m**0.5, randn(n, len(values)) / n**0.5
    deltas = torch.empty(num_tasks, m, n)
    for delta in deltas:
        u = qr(left + angle * randn(*left.shape) / m**0.5).Q
        v = qr(right + angle * randn(*right.shape) / n**0.5).Q
        delta.copy_(u * values @ v.mT)
    return deltas


def exponents(num):
    return torch.linspace(0, 1, num, dtype=torch.float64)


def noise(num_tasks, m, n):
    return torch.randn(num_tasks, m, n)


def shared(num_tasks, m, n):
    """Directions that the tasks share, over 1.5 decades, above each task's noise."""
    values = 3 * (m**0.5 + n**0.5) * 10 ** (-1.5 * exponents(32))
    return layers(num_tasks, m, n, values, 0.05) + noise(num_tasks, m, n)


def power(num_tasks, m, n):
    return layers(num_tasks, m, n, 1 / torch.arange(1, min(m, n) + 1).double(), 0.5)


def steep(num_tasks, m, n):
    return layers(num_tasks, m, n, 10 ** (-4 * exponents(min(m, n))), 0.5)


def dominant(num_tasks, m, n):
    one = layers(num_tasks, m, n, torch.tensor([100 * m**0.5], dtype=torch.float64), 0.3)
    return one + noise(num_tasks, m, n)


def lora(num_tasks, m, n, size):
    """Rank 16 and noise whose largest singular value is ``size`` of the largest."""
    scale = size / (m**0.5 + n**0.5)
    return layers(num_tasks, m, n, 0.5 + exponents(16)) + scale * noise(num_tasks, m, n)


def bfloat16(num_tasks, m, n):
    """Of weights stored in bfloat16, so that a delta is mostly their rounding."""
    weights = 0.02 * torch.randn(m, n)
    tuned = weights + 1e-4 * shared(num_tasks, m, n)
    return tuned.bfloat16().float() - weights.bfloat16().float()


def plateau(num_tasks, m, n, rank, low, beyond, far=None, edge=None, angle=1.0):
    """One value of 1, then ``low`` ones up to ``rank``, then ``beyond`` of these.

    Where ``low`` is small, float32 turns what the tasks keep; where they share it, more so.
    """
    values = low * (1.3 - 0.3 * exponents(min(m, n)))
    values[0] = 1
    values[rank:] *= beyond
    values[rank + 32 :] *= far or 1
    if edge:  # the first that is left out is nearly as large as the last that is kept
        values[rank] = edge * values[rank - 1]
    return layers(num_tasks, m, n, values, angle)


def exact_merge(deltas, rank, dtype=torch.float64):
    """The paper's procedure, step by step."""
    u, s, vh = svd(deltas.to(dtype), full_matrices=False)
    tasks = [
        (own_u[:, kept], own_s[kept], own_vh[kept])
        for own_u, own_s, own_vh in zip(u, s, vh, strict=True)
        for kept in [(own_s > ZERO * own_s[0]) & (torch.arange(len(own_s)) < rank)]
    ]
    left, values, right = zip(*tasks, strict=True)
    return nearest(torch.cat(left, dim=1)) * torch.cat(values) @ nearest(torch.cat(right))


def nearest(a):
    u, s, vh = svd(a, full_matrices=False)
    spanned = s > ZERO * s[:1]
    return u[:, spanned] @ vh[spanned]


def low_rank(num_tasks, m, n, rank=4):
    """Deltas of a lower rank than is kept, rounded to float32."""
    return torch.stack([torch.randn(m, rank) @ torch.randn(rank, n) for _ in range(num_tasks)])


def outlier(num_tasks, m, n, times=1e5):
    """Deltas with one entry that is far larger than all others."""
    deltas = power(num_tasks, m, n)
    deltas[:, 5, 7] += times * deltas.abs().mean()
    return deltas
