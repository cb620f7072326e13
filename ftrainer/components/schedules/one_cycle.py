"""Up to the full learning rate and down to almost nothing."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import above, between, count, one_of
from ftrainer.functional.phases import Context
from registry.spec import component, replace, traceable

from .base import Factor, Interval, interval_field, known, planned, position


@component
class OneCycle(Factor):
    """The learning rates of `torch.optim.lr_scheduler.OneCycleLR` with `max_lr` the optimizer's own (Smith, 2018).

    Betas and momentum stay; `sched_factory.torch` moves them too.

    Attributes:
        steps: length of the cycle in units of `interval`; null is the run's planned length.
        pct_start: share of it that climbs.
        div_factor: the cycle begins at `1 / div_factor`.
        final_div_factor: and ends at `1 / (div_factor * final_div_factor)`.
        anneal: shape of both halves, `cos` or `linear`.
        interval: `step` or `epoch`.
    """

    steps: int | None = attrs.field(default=None, validator=attrs.validators.optional(count(2)))
    pct_start: float = attrs.field(default=0.3, validator=between(0, 1))
    div_factor: float = traceable(25.0, validator=above(0))
    final_div_factor: float = traceable(1e4, validator=above(0))
    anneal: str = attrs.field(default="cos", validator=one_of("cos", "linear"))
    interval: Interval = interval_field()

    def factor(self, ctx: Context) -> Tensor:
        """The factor at this step or epoch."""
        steps, t = known(self.steps), position(ctx, self.interval)
        top, end = self.pct_start * steps - 1, steps - 1
        low = 1 / self.div_factor
        up = self._between(low, 1.0, t / top if top > 0 else torch.ones_like(t))
        down = self._between(1.0, low / self.final_div_factor, (t - top) / (end - top) if end > top else t)
        return torch.where(t <= top, up, down)

    def resolve(self, total_steps: int | None, steps_per_epoch: int | None) -> OneCycle:
        """`steps` from the run's planned length where it was left open."""
        return self if self.steps else replace(self, steps=planned(self.interval, total_steps, steps_per_epoch))

    def _between(self, start: float, end: float, share: Tensor) -> Tensor:
        share = torch.clamp(share, 0.0, 1.0)
        if self.anneal == "linear":
            return start + (end - start) * share
        return end + (start - end) / 2 * (1 + torch.cos(math.pi * share))
