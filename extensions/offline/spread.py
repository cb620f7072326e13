"""A policy's randomness, as a layer on top of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from registry import invalid


class Spread(nn.Module):
    """A Gaussian around what comes in, its deviation learnt and the same in every state (`policy.spread`).

    On top of a bounded mean it is the policy of implicit Q-learning's authors.

    Args:
        out_features: dimensions of the action.
        log_std_min, log_std_max: the log standard deviation is clamped between them.

    >>> {name: tuple(value.shape) for name, value in Spread(2)(torch.zeros(3, 2)).items()}
    {'action': (3, 2), 'mean': (3, 2), 'log_std': (3, 2)}
    """

    def __init__(self, out_features: int, log_std_min: float = -5.0, log_std_max: float = 2.0) -> None:
        super().__init__()
        if log_std_min >= log_std_max:
            raise invalid("must be below log_std_max", "log_std_min", found=f"{log_std_min} ≥ {log_std_max}")
        self.log_std = nn.Parameter(torch.zeros(out_features))
        self.bounds = (log_std_min, log_std_max)

    def forward(self, mean: Tensor) -> dict[str, Tensor]:
        """(…, out_features) to `action` and `mean`, both of them the input, and `log_std`."""
        return {"action": mean, "mean": mean, "log_std": self.log_std.clamp(*self.bounds).expand_as(mean)}
