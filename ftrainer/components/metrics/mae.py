"""The mean absolute error of a split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ftrainer.components.losses.masking import Path, alike, pair
from registry.spec import component


@component
class MAE:
    """The mean of `|prediction - target|` over all elements.

    Attributes:
        name: what it is logged as.
        pred_path: from the model's output to the prediction; empty is the whole output.
        target_path: from the targets to the target; null is the only one.

    >>> MAE().compute(torch.tensor([1.0, 3.0]), {"y": torch.tensor([0.0, 0.0])})
    {'mae': tensor(2.)}
    """

    name: str = "mae"
    pred_path: Path = ()
    target_path: Path | None = None

    def compute(self, outputs: Any, targets: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """The figure over a whole split, by name."""
        prediction, target = alike(*pair(outputs, targets, self.pred_path, self.target_path))
        return {self.name: torch.abs(prediction - target).mean()}
