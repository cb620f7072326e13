"""The learning rate falls by a factor every so many steps."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import above, count
from ftrainer.functional.phases import Context
from registry.spec import component, traceable

from .base import Factor, Interval, interval_field, position


@component
class Step(Factor):
    """`gamma ** (t // step_size)`, as `torch.optim.lr_scheduler.StepLR`.

    Attributes:
        step_size: steps or epochs between two falls.
        gamma: what each multiplies the learning rate by.
        interval: `step` or `epoch`.
    """

    step_size: int = attrs.field(validator=count())
    gamma: float = traceable(0.1, validator=above(0))
    interval: Interval = interval_field()

    def factor(self, ctx: Context) -> Tensor:
        """The factor at this step or epoch."""
        return self.gamma ** torch.floor(position(ctx, self.interval) / self.step_size)
