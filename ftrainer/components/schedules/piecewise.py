"""Schedules one after another."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import count
from ftrainer.functional.phases import Context
from registry.issue import invalid
from registry.spec import component, replace

from .base import Factor, Interval, interval_field, later, position, remaining


@component
class Piecewise(Factor):
    """Each schedule from its boundary on, counting from there, as `torch.optim.lr_scheduler.SequentialLR`.

    Attributes:
        schedules: at least one.
        boundaries: where each but the first begins, in units of `interval`, growing.
        interval: `step` or `epoch`.

    >>> from .constant import Constant
    >>> zero, one = torch.tensor(0), torch.tensor(1.0, dtype=torch.float64)
    >>> schedule = Piecewise(schedules=[Constant(), Constant(value=0.5)], boundaries=[10])
    >>> [float(schedule.factor(Context(step=zero + t, epoch=zero, count=zero, lr_scale=one))) for t in (9, 10)]
    [1.0, 0.5]
    """

    schedules: tuple[Factor, ...]
    boundaries: tuple[int, ...] = attrs.field(default=(), validator=count())
    interval: Interval = interval_field()

    def __attrs_post_init__(self) -> None:
        if len(self.schedules) != len(self.boundaries) + 1:
            expected = f"{max(0, len(self.schedules) - 1)}, one less than schedules"
            raise invalid(
                "wrong number of boundaries", "boundaries", found=str(len(self.boundaries)), expected=expected
            )
        if any(b <= a for a, b in pairwise(self.boundaries)):
            raise invalid("must grow", "boundaries", found=repr(self.boundaries))

    def factor(self, ctx: Context) -> Tensor:
        """The factor of the schedule whose turn it is."""
        t, result = position(ctx, self.interval), self.schedules[0].factor(ctx)
        for boundary, schedule in zip(self.boundaries, self.schedules[1:], strict=True):
            result = torch.where(t >= boundary, schedule.factor(later(ctx, self.interval, boundary)), result)
        return result

    def resolve(self, total_steps: int | None, steps_per_epoch: int | None) -> Any:
        """Each schedule's length is the distance between its boundaries, the last one's what is left of the run."""
        starts = (0, *self.boundaries)
        ends = [remaining(self.interval, -end, 0, steps_per_epoch) for end in self.boundaries] + [total_steps]
        lengths = [
            remaining(self.interval, start, end, steps_per_epoch) for start, end in zip(starts, ends, strict=True)
        ]
        pairs = zip(self.schedules, lengths, strict=True)
        return replace(self, schedules=tuple(schedule.resolve(n, steps_per_epoch) for schedule, n in pairs))
