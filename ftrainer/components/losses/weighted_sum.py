"""Several losses at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ftrainer.components.base import Loss
from ftrainer.components.fields import number
from registry.issue import invalid
from registry.spec import component, traceable


@component
class WeightedSum:
    """The sum of losses, each times its weight.

    Attributes:
        losses: at least one.
        weights: one for each; none at all weighs every loss 1.

    >>> import torch
    >>> from .mse import MSE
    >>> from .l1 import L1
    >>> WeightedSum(losses=[MSE(), L1()], weights=[1.0, 0.5])(torch.tensor([2.0]), {"y": torch.tensor([0.0])})
    tensor(5.)
    """

    losses: tuple[Loss, ...]
    weights: tuple[float, ...] = traceable((), validator=number())

    def __attrs_post_init__(self) -> None:
        if not self.losses:
            raise invalid("nothing to sum", "losses", expected="at least one loss")
        if self.weights and len(self.weights) != len(self.losses):
            expected = f"{len(self.losses)}, one for each loss"
            raise invalid("wrong number of weights", "weights", found=str(len(self.weights)), expected=expected)

    def __call__(self, outputs: Any, targets: Mapping[str, Any], mask: Tensor | None = None) -> Tensor:
        """The loss of a batch, 0-d; rows where `mask` (B,) is False count for nothing."""
        values = [loss(outputs, targets, mask) for loss in self.losses]
        terms = [
            (w * value).to(value.dtype) for w, value in zip(self.weights or (1.0,) * len(values), values, strict=True)
        ]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total
