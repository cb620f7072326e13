"""Waves of geometrically spaced frequencies."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoid(position: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Sines and cosines of a position, interleaved (Vaswani et al., 2017, section 3.5).

    Args:
        position: (…) of any floating dtype.
        dim: even number of features; feature 2i is `sin(position / max_period**(2i / dim))`, feature 2i + 1 its cosine.
        max_period: the longest wave is almost `2π max_period` long.

    Returns:
        (…, dim), of the dtype of `position`.

    >>> sinusoid(torch.tensor([0.0]), 4)
    tensor([[0., 1., 0., 1.]])
    """
    exponent = torch.arange(0, dim, 2, device=position.device, dtype=position.dtype) / dim
    angle = position[..., None] * torch.exp(-math.log(max_period) * exponent)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)
