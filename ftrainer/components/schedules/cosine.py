"""Half a cosine wave from the full learning rate to its end."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import at_least, count
from ftrainer.functional.phases import Context
from registry.spec import component, replace, traceable

from .base import Factor, Interval, interval_field, known, planned, position


@component
class Cosine(Factor):
    """`final + (1 - final) * (1 + cos(pi * t / steps)) / 2`, then `final` (Loshchilov & Hutter, 2017).

    Attributes:
        steps: length of the descent in units of `interval`; None is the run's planned length.
        final: the factor at its end.
        interval: `step` or `epoch`.

    >>> zero, one = torch.tensor(0), torch.tensor(1.0, dtype=torch.float64)
    >>> float(Cosine(steps=10).factor(Context(step=zero + 5, epoch=zero, count=zero, lr_scale=one)))
    0.5
    """

    steps: int | None = attrs.field(default=None, validator=attrs.validators.optional(count()))
    final: float = traceable(0.0, validator=at_least(0))
    interval: Interval = interval_field()

    def factor(self, ctx: Context) -> Tensor:
        """The factor at this step or epoch; `resolve` has filled `steps`."""
        t = torch.clamp(position(ctx, self.interval) / known(self.steps), max=1.0)
        return self.final + (1 - self.final) * (1 + torch.cos(math.pi * t)) / 2

    def resolve(self, total_steps: int | None, steps_per_epoch: int | None) -> Cosine:
        """`steps` from the run's planned length where it was left open."""
        return self if self.steps else replace(self, steps=planned(self.interval, total_steps, steps_per_epoch))
