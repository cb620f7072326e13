"""The learning rate falls by a factor at each of some milestones."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import above, count
from ftrainer.functional.phases import Context
from registry.spec import component, traceable

from .base import Factor, Interval, interval_field, position


@component
class MultiStep(Factor):
    """`gamma ** (milestones that t has reached)`, as `torch.optim.lr_scheduler.MultiStepLR`.

    Attributes:
        milestones: steps or epochs, in any order; one that stands there twice falls twice.
        gamma: what each multiplies the learning rate by.
        interval: `step` or `epoch`.
    """

    milestones: tuple[int, ...] = attrs.field(validator=count())
    gamma: float = traceable(0.1, validator=above(0))
    interval: Interval = interval_field()

    def factor(self, ctx: Context) -> Tensor:
        """The factor at this step or epoch."""
        t = position(ctx, self.interval)
        reached = torch.zeros_like(t)
        for milestone in self.milestones:
            reached = reached + (t >= milestone)
        return self.gamma**reached
