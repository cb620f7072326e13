"""The same fall at every step."""

from __future__ import annotations

from torch import Tensor

from ftrainer.components.fields import above
from ftrainer.functional.phases import Context
from registry.spec import component, traceable

from .base import Factor, Interval, interval_field, position


@component
class Exponential(Factor):
    """`gamma ** t`, as `torch.optim.lr_scheduler.ExponentialLR`.

    Attributes:
        gamma: what each step or epoch multiplies the learning rate by.
        interval: `step` or `epoch`.
    """

    gamma: float = traceable(validator=above(0))
    interval: Interval = interval_field()

    def factor(self, ctx: Context) -> Tensor:
        """The factor at this step or epoch."""
        return self.gamma ** position(ctx, self.interval)
