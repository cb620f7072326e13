"""The same learning rate throughout."""

from __future__ import annotations

import torch
from torch import Tensor

from ftrainer.components.fields import at_least
from ftrainer.functional.phases import Context
from registry.spec import component, traceable

from .base import Factor


@component
class Constant(Factor):
    """A fixed factor.

    Attributes:
        value: the factor.
    """

    value: float = traceable(1.0, validator=at_least(0))

    def factor(self, ctx: Context) -> Tensor:
        """`value`."""
        return self.value * torch.ones_like(ctx.step, dtype=torch.float64)
