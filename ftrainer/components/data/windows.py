"""Looking back and ahead inside episodes that lie end to end, never across their ends.

Step `t` of all the steps, N of them, belongs to the episode whose steps are `first[t]` … `stop[t] - 1`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Steps(NamedTuple):
    """Where every step stands, (N,) int64 each.

    Attributes:
        episode: number of its episode.
        first: first step of its episode.
        stop: one past the last step of its episode.
    """

    episode: Tensor
    first: Tensor
    stop: Tensor

    @property
    def here(self) -> Tensor:
        """The steps themselves: 0 … N-1."""
        return torch.arange(len(self.episode))


def lay_out(lengths: Tensor) -> Steps:
    """Episodes of these lengths, (E,) int64, end to end.

    >>> lay_out(torch.tensor([2, 1])).first
    tensor([0, 0, 2])
    """
    stops = lengths.cumsum(0)
    return Steps(*(part.repeat_interleave(lengths) for part in (torch.arange(len(lengths)), stops - lengths, stops)))


def looking_back(steps: Steps, at: Tensor, n: int) -> Tensor:
    """Moments of the last `n` observations up to `at`, oldest first; before an episode its first one repeats.

    Args:
        steps: where every step stands.
        at: (N,) int64, a moment no earlier than the step's `first`; `stop` itself is the episode's last observation.
        n: how many.

    Returns:
        (N, n) int64.

    >>> steps = lay_out(torch.tensor([2, 1]))
    >>> looking_back(steps, steps.here, 2).tolist()
    [[0, 0], [0, 1], [2, 2]]
    """
    moments = at[:, None] + torch.arange(1 - n, 1)
    return torch.maximum(moments, steps.first[:, None])


def looking_ahead(steps: Steps, n: int) -> tuple[Tensor, Tensor]:
    """The `n` steps from each one on; past its episode's end the last one repeats and the mask is False.

    Returns:
        steps, (N, n) int64, and mask, (N, n) bool.

    >>> rows, mask = looking_ahead(lay_out(torch.tensor([2, 1])), 2)
    >>> rows.tolist(), mask.tolist()
    ([[0, 1], [1, 1], [2, 2]], [[True, True], [True, False], [True, False]])
    """
    rows = steps.here[:, None] + torch.arange(n)
    return torch.minimum(rows, steps.stop[:, None] - 1), rows < steps.stop[:, None]


def n_step_return(steps: Steps, reward: Tensor, n: int, gamma: float) -> tuple[Tensor, Tensor]:
    """Discounted reward over up to `n` steps, fewer where the episode ends (Sutton & Barto, 2018, eq. 7.1).

    Args:
        steps: where every step stands.
        reward: (N,).
        n: steps to sum, at least 1.
        gamma: the discount.

    Returns:
        `sum(gamma**i * reward[t + i] for i < k)`, (N,) in the dtype of `reward`, and `k`, (N,) int64.

    >>> n_step_return(lay_out(torch.tensor([2])), torch.tensor([1.0, 1.0]), 3, 0.5)
    (tensor([1.5000, 1.0000]), tensor([2, 1]))
    """
    rows, mask = looking_ahead(steps, n)
    discounts = gamma ** torch.arange(n, dtype=torch.float64)
    total = (reward[rows].to(torch.float64) * mask * discounts).sum(1)
    return total.to(reward.dtype), mask.sum(1)
