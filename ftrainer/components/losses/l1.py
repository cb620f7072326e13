"""The mean absolute error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from registry.spec import component

from .masking import Path, alike, masked_mean, pair


@component
class L1:
    """The mean of `|prediction - target|` over all elements, as `nn.L1Loss`.

    Attributes:
        pred_path: from the model's output to the prediction; empty is the whole output.
        target_path: from the targets to the target; null is the only one.

    >>> L1()(torch.tensor([1.0, 3.0]), {"y": torch.tensor([0.0, 0.0])})
    tensor(2.)
    """

    pred_path: Path = ()
    target_path: Path | None = None

    def __call__(self, outputs: Any, targets: Mapping[str, Any], mask: Tensor | None = None) -> Tensor:
        """The loss of a batch, 0-d; rows where `mask` (B,) is False count for nothing."""
        prediction, target = alike(*pair(outputs, targets, self.pred_path, self.target_path))
        return masked_mean(torch.abs(prediction - target), mask)
