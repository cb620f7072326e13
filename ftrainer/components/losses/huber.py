"""Squares near the target, straight lines far from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ftrainer.components.fields import above
from registry.spec import component, traceable

from .masking import Path, alike, masked_mean, pair


@component
class Huber:
    """The mean of `e ** 2 / 2` where `|e| <= delta`, else of `delta * (|e| - delta / 2)`, as `nn.HuberLoss`.

    Attributes:
        delta: where the line begins.
        pred_path: from the model's output to the prediction; empty is the whole output.
        target_path: from the targets to the target; null is the only one.

    >>> Huber(delta=1.0)(torch.tensor([1.0, 3.0]), {"y": torch.tensor([0.0, 0.0])})
    tensor(1.5000)
    """

    delta: float = traceable(1.0, validator=above(0))
    pred_path: Path = ()
    target_path: Path | None = None

    def __call__(self, outputs: Any, targets: Mapping[str, Any], mask: Tensor | None = None) -> Tensor:
        """The loss of a batch, 0-d; rows where `mask` (B,) is False count for nothing."""
        prediction, target = alike(*pair(outputs, targets, self.pred_path, self.target_path))
        error = torch.abs(prediction - target)
        near = error <= self.delta
        losses = torch.where(near, 0.5 * error * error, self.delta * (error - 0.5 * self.delta))
        return masked_mean(losses.to(error.dtype), mask)
