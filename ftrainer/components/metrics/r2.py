"""The share of the variance that is explained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ftrainer.components.losses.masking import Path, alike, pair
from registry.spec import component


@component
class R2:
    """`1 - residual / total` sum of squares, averaged over the target's columns (the coefficient of determination).

    Attributes:
        name: what it is logged as.
        pred_path: from the model's output to the prediction; empty is the whole output.
        target_path: from the targets to the target; null is the only one.

    >>> R2().compute(torch.tensor([1.0, 3.0]), {"y": torch.tensor([0.0, 2.0])})
    {'r2': tensor(0.)}
    """

    name: str = "r2"
    pred_path: Path = ()
    target_path: Path | None = None

    def compute(self, outputs: Any, targets: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """The figure over a whole split, by name."""
        prediction, target = alike(*pair(outputs, targets, self.pred_path, self.target_path))
        residual = torch.square(target - prediction).sum(0)
        total = torch.square(target - target.mean(0)).sum(0)
        return {self.name: (1 - residual / total).mean()}
