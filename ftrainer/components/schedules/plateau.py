"""The learning rate falls when a validation metric stops getting better."""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import at_least, count, number, one_of
from ftrainer.functional.phases import Context, Transform
from registry.issue import invalid
from registry.spec import component

from .base import rewrite


@component
class Plateau:
    """Multiply the learning rate by `factor` after `patience` validations in a row without a better `monitor`.

    The rule is `torch.optim.lr_scheduler.ReduceLROnPlateau`'s. It reads the host's metrics, so the loop calls `observe`
    after each validation and puts the result where the step finds it as `ctx.lr_scale`.

    Attributes:
        monitor: the validation metric.
        mode: whether smaller (`min`) or larger (`max`) is better.
        factor: what each fall multiplies the learning rate by.
        patience: validations without a better value that are put up with.
        threshold: by how much a value must be better to count.
        threshold_mode: whether that is relative to the best value (`rel`) or absolute (`abs`).
        cooldown: validations after a fall that count for nothing.
        min_lr: where the fall ends.
        frequency: only every n-th validation counts at all.

    >>> plateau = Plateau(patience=0, factor=0.5)
    >>> state, scale = plateau.observe(plateau.init(), 1.0)
    >>> plateau.observe(state, 1.0)[1]
    0.5
    """

    monitor: str = "loss"
    mode: str = attrs.field(default="min", validator=one_of("min", "max"))
    factor: float = attrs.field(default=0.1, validator=at_least(0))
    patience: int = attrs.field(default=10, validator=count(0))
    threshold: float = attrs.field(default=1e-4, validator=number())
    threshold_mode: str = attrs.field(default="rel", validator=one_of("rel", "abs"))
    cooldown: int = attrs.field(default=0, validator=count(0))
    min_lr: float = attrs.field(default=0.0, validator=at_least(0))
    frequency: int = attrs.field(default=1, validator=count())

    def __attrs_post_init__(self) -> None:
        if self.factor >= 1:
            raise invalid("would not lower the learning rate", "factor", found=repr(self.factor), expected="below 1")

    def init(self) -> dict[str, Any]:
        """What `observe` remembers, as JSON data."""
        return {"best": None, "seen": 0, "bad": 0, "cooldown": 0, "scale": 1.0}

    def observe(self, state: dict[str, Any], metric: float) -> tuple[dict[str, Any], float]:
        """What is remembered after one more validation, and the scale of the learning rate from now on."""
        state = {**state, "seen": state["seen"] + 1}
        if state["seen"] % self.frequency:
            return state, state["scale"]
        if self._better(metric, state["best"]):
            state |= {"best": metric, "bad": 0}
        else:
            state["bad"] += 1
        if state["cooldown"]:
            state |= {"cooldown": state["cooldown"] - 1, "bad": 0}
        if state["bad"] > self.patience:
            state |= {"bad": 0, "cooldown": self.cooldown, "scale": state["scale"] * self.factor}
        return state, state["scale"]

    def adjust(self, transform: Transform, ctx: Context) -> Transform:
        """Every learning rate times the scale that the loop set, never falling below `min_lr`."""

        def change(lr: Any) -> Tensor:
            lr = lr * torch.ones_like(ctx.lr_scale)
            return torch.maximum(lr * ctx.lr_scale, torch.clamp(lr, max=self.min_lr))

        return rewrite(transform, "lr", change)

    def _better(self, metric: float, best: float | None) -> bool:
        """Torch's own comparison, which is loose where `rel` meets a best value below zero."""
        sign = 1 if self.mode == "min" else -1
        if best is None:
            return sign * metric < math.inf
        bar = best * (1 - sign * self.threshold) if self.threshold_mode == "rel" else best - sign * self.threshold
        return sign * metric < sign * bar
