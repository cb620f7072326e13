"""A climb in front of another schedule."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import at_least, count
from ftrainer.functional.phases import Context
from registry.spec import component, replace, traceable

from .base import Factor, Interval, interval_field, later, position, remaining
from .constant import Constant


@component
class Warmup(Factor):
    """A line from `start` to the inner schedule's first factor, then the inner schedule from its beginning.

    Attributes:
        steps: length of the climb in units of `interval`.
        inner: what follows; its own count of the same unit starts where the climb ends.
        start: where the climb begins, as a share of the inner schedule's first factor.
        interval: `step` or `epoch`.

    >>> zero, one = torch.tensor(0), torch.tensor(1.0, dtype=torch.float64)
    >>> float(Warmup(steps=10).factor(Context(step=zero + 5, epoch=zero, count=zero, lr_scale=one)))
    0.5
    """

    steps: int = attrs.field(validator=count())
    inner: Factor = Constant(value=1.0)
    start: float = traceable(0.0, validator=at_least(0))
    interval: Interval = interval_field()

    def factor(self, ctx: Context) -> Tensor:
        """The climb times the inner factor."""
        t = torch.clamp(position(ctx, self.interval) / self.steps, max=1.0)
        return (self.start + (1 - self.start) * t) * self.inner.factor(later(ctx, self.interval, self.steps))

    def resolve(self, total_steps: int | None, steps_per_epoch: int | None) -> Any:
        """The inner schedule takes what the climb leaves of the run."""
        left = remaining(self.interval, self.steps, total_steps, steps_per_epoch)
        return replace(self, inner=self.inner.resolve(left, steps_per_epoch))
