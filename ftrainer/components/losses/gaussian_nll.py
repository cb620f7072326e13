"""The likelihood of a Gaussian whose mean and spread the model gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ftrainer.components.fields import number
from registry.issue import invalid
from registry.spec import component, traceable

from .masking import Path, alike, masked_mean, pair, pick


@component
class GaussianNLL:
    """The mean of `log_std + ((target - mean) / std) ** 2 / 2`, as `nn.GaussianNLLLoss`.

    The prediction is a mapping with `mean` and `log_std`, a pair of them, or one tensor with both halves in its last
    dimension.

    Attributes:
        min_log_std: smaller values are raised to it.
        full: add the constant `log(2 * pi) / 2`.
        pred_path: from the model's output to the prediction; empty is the whole output.
        target_path: from the targets to the target; null is the only one.

    >>> outputs = {"mean": torch.tensor([1.0]), "log_std": torch.tensor([0.0])}
    >>> GaussianNLL()(outputs, {"action": torch.tensor([3.0])})
    tensor(2.)
    """

    min_log_std: float = traceable(-7.0, validator=number())
    full: bool = False
    pred_path: Path = ()
    target_path: Path | None = None

    def __call__(self, outputs: Any, targets: Mapping[str, Any], mask: Tensor | None = None) -> Tensor:
        """The loss of a batch, 0-d; rows where `mask` (B,) is False count for nothing."""
        prediction, target = pair(outputs, targets, self.pred_path, self.target_path)
        mean, log_std = halves(prediction)
        mean, target = alike(mean, target)
        log_std = torch.clamp(log_std, min=self.min_log_std)
        losses = log_std + 0.5 * torch.square((target - mean) * torch.exp(-log_std))
        return masked_mean(losses + 0.5 * math.log(2 * math.pi) if self.full else losses, mask)


def halves(prediction: Any) -> tuple[Tensor, Tensor]:
    """Mean and logarithm of the standard deviation.

    Raises:
        ConfigError: the prediction holds no such two.
    """
    if isinstance(prediction, Mapping):
        return pick(prediction, "mean", "pred_path"), pick(prediction, "log_std", "pred_path")
    if isinstance(prediction, (tuple, list)) and len(prediction) == 2:
        return prediction[0], prediction[1]
    if isinstance(prediction, Tensor) and prediction.shape[-1] % 2 == 0:
        mean, log_std = prediction.chunk(2, -1)
        return mean, log_std
    found = tuple(prediction.shape) if isinstance(prediction, Tensor) else type(prediction).__name__
    raise invalid(
        "no mean and log_std", "pred_path", found=str(found), expected="a mapping, a pair, or an even last dimension"
    )
