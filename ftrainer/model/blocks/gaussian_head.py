"""A distribution over actions, as a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftrainer.functional import random
from registry.issue import invalid

from .mlp import linear

Outputs = Mapping[str, Tensor]


class GaussianHead(nn.Module):
    """Mean and log standard deviation of a diagonal Gaussian, squashed by tanh or not (`gaussian_head`).

    Squashed, the Gaussian is that of the action before the tanh (Haarnoja et al., 2018, "Soft Actor-Critic",
    appendix C); see `sample` and `log_prob`.

    Args:
        in_features: None takes it from the example.
        out_features: dimensions of the action.
        squash: actions lie in (-1, 1).
        log_std_min, log_std_max: the log standard deviation is clamped between them.
        state_dependent: the standard deviation depends on the input; else it is one parameter per dimension.

    Raises:
        ConfigError: the bounds are the wrong way round.

    >>> outputs = GaussianHead(in_features=4, out_features=2, squash=True)(torch.zeros(3, 4))
    >>> {name: tuple(value.shape) for name, value in outputs.items()}
    {'action': (3, 2), 'mean': (3, 2), 'log_std': (3, 2)}
    """

    def __init__(
        self,
        in_features: int | None,
        out_features: int,
        squash: bool = False,
        log_std_min: float = -5.0,
        log_std_max: float = 2.0,
        state_dependent: bool = True,
    ) -> None:
        super().__init__()
        if log_std_min >= log_std_max:
            raise invalid("must be below log_std_max", "log_std_min", found=f"{log_std_min} ≥ {log_std_max}")
        self.mean = linear(in_features, out_features)
        self.log_std: nn.Module | nn.Parameter
        self.log_std = linear(in_features, out_features) if state_dependent else nn.Parameter(torch.zeros(out_features))
        self.squash, self.bounds = squash, (log_std_min, log_std_max)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(…, in_features) to `action` (the distribution's mode before squashing, squashed), `mean`, `log_std`."""
        mean = self.mean(x)
        raw = self.log_std(x) if isinstance(self.log_std, nn.Module) else self.log_std.expand_as(mean)
        action = mean.tanh() if self.squash else mean
        return {"action": action, "mean": mean, "log_std": raw.clamp(*self.bounds)}


def sample(outputs: Outputs, key: Tensor, squash: bool = False) -> Tensor:
    """An action drawn from `key`, shape and dtype of `outputs["mean"]`; differentiable in the outputs."""
    mean, log_std = outputs["mean"], outputs["log_std"]
    action = mean + log_std.exp() * random.normal(key, mean.shape, mean.dtype)
    return action.tanh() if squash else action


def log_prob(outputs: Outputs, action: Tensor, squash: bool = False) -> Tensor:
    """The log density of an action, summed over its last dimension.

    Args:
        outputs: of a `GaussianHead`.
        action: (…, A); squashed actions are pulled off ±1 by the dtype's resolution before the inverse of tanh.
        squash: as of the head. The change of variables is `log(1 - tanh(u)²) = 2 (log 2 - u - softplus(-2u))`.
    """
    mean, log_std = outputs["mean"], outputs["log_std"]
    limit = 1 - torch.finfo(action.dtype).eps
    before = action.clamp(-limit, limit).atanh() if squash else action
    density = -0.5 * ((before - mean) / log_std.exp()).square() - log_std - 0.5 * math.log(2 * math.pi)
    if squash:
        density = density - 2 * (math.log(2) - before - F.softplus(-2 * before))
    return density.sum(-1)
