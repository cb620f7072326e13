"""A slow fall that needs no planned end."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import count
from ftrainer.functional.phases import Context
from registry.spec import component

from .base import Factor, Interval, interval_field, position


@component
class InverseSqrt(Factor):
    """`sqrt(timescale / (timescale + t))`; behind a warmup of as many steps that of Vaswani et al. (2017).

    Attributes:
        timescale: in units of `interval`; after three of them the learning rate is half.
        interval: `step` or `epoch`.

    >>> zero, one = torch.tensor(0), torch.tensor(1.0, dtype=torch.float64)
    >>> float(InverseSqrt(timescale=10).factor(Context(step=zero + 30, epoch=zero, count=zero, lr_scale=one)))
    0.5
    """

    timescale: int = attrs.field(validator=count())
    interval: Interval = interval_field()

    def factor(self, ctx: Context) -> Tensor:
        """The factor at this step or epoch."""
        return torch.sqrt(self.timescale / (self.timescale + position(ctx, self.interval)))
