"""A straight line from one factor to another."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import at_least, count
from ftrainer.functional.phases import Context
from registry.spec import component, replace, traceable

from .base import Factor, Interval, interval_field, known, planned, position


@component
class Linear(Factor):
    """`start + (final - start) * t / steps`, then `final`, as `torch.optim.lr_scheduler.LinearLR`.

    Attributes:
        steps: length of the line in units of `interval`; null is the run's planned length.
        start: the factor at its beginning.
        final: the factor at its end.
        interval: `step` or `epoch`.

    >>> zero, one = torch.tensor(0), torch.tensor(1.0, dtype=torch.float64)
    >>> float(Linear(steps=4).factor(Context(step=zero + 1, epoch=zero, count=zero, lr_scale=one)))
    0.75
    """

    steps: int | None = attrs.field(default=None, validator=attrs.validators.optional(count()))
    start: float = traceable(1.0, validator=at_least(0))
    final: float = traceable(0.0, validator=at_least(0))
    interval: Interval = interval_field()

    def factor(self, ctx: Context) -> Tensor:
        """The factor at this step or epoch."""
        t = torch.clamp(position(ctx, self.interval) / known(self.steps), max=1.0)
        return self.start + (self.final - self.start) * t

    def resolve(self, total_steps: int | None, steps_per_epoch: int | None) -> Linear:
        """`steps` from the run's planned length where it was left open."""
        return self if self.steps else replace(self, steps=planned(self.interval, total_steps, steps_per_epoch))
