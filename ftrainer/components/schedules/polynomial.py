"""A power of the share of the run that is left."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import above, at_least, count
from ftrainer.functional.phases import Context
from registry.spec import component, replace, traceable

from .base import Factor, Interval, interval_field, known, planned, position


@component
class Polynomial(Factor):
    """`final + (1 - final) * (1 - t / steps) ** power`, then `final`, as `torch.optim.lr_scheduler.PolynomialLR`.

    Attributes:
        steps: length of the descent in units of `interval`; null is the run's planned length.
        power: 1 is a straight line.
        final: the factor at its end.
        interval: `step` or `epoch`.
    """

    steps: int | None = attrs.field(default=None, validator=attrs.validators.optional(count()))
    power: float = traceable(1.0, validator=above(0))
    final: float = traceable(0.0, validator=at_least(0))
    interval: Interval = interval_field()

    def factor(self, ctx: Context) -> Tensor:
        """The factor at this step or epoch."""
        left = torch.clamp(1 - position(ctx, self.interval) / known(self.steps), min=0.0)
        return self.final + (1 - self.final) * left**self.power

    def resolve(self, total_steps: int | None, steps_per_epoch: int | None) -> Polynomial:
        """`steps` from the run's planned length where it was left open."""
        return self if self.steps else replace(self, steps=planned(self.interval, total_steps, steps_per_epoch))
