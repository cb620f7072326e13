"""Which example comes when: pure functions of (seed, epoch), drawn on the CPU so that every device agrees."""

from __future__ import annotations

import torch
from torch import Tensor

from ftrainer.functional import random

from .shuffle import shuffled

# What a seed is used for: one constant per use, so that no two draws share a key.
ORDER, SPLIT, CONTENTS, SAMPLES = range(1, 5)


def epoch_order(n: int, *, seed: int, epoch: int, shuffle: bool = True, weights: Tensor | None = None) -> Tensor:
    """The positions that one epoch visits, in order.

    Args:
        n: examples in the split.
        seed: the run's seed.
        epoch: counted from 0.
        shuffle: False keeps the natural order.
        weights: (n,) non-negative, on the CPU; with them the epoch draws n times with replacement, in proportion.

    Returns:
        (n,) int64 on the CPU; without weights a permutation.

    >>> sorted(epoch_order(4, seed=0, epoch=1).tolist())
    [0, 1, 2, 3]
    """
    key = random.descendant(seed, ORDER, epoch)
    if weights is not None:
        edges = weights.to(torch.float64).cumsum(0)
        draws = random.uniform(torch.tensor(key), (n,), torch.float64) * edges[-1]
        return torch.searchsorted(edges, draws, right=True).clamp(max=n - 1)
    return shuffled(key, n) if shuffle else torch.arange(n)


def split_rows(n: int, *, fraction: float, seed: int, groups: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rows of the training and of the validation split, each in natural order.

    Args:
        n: examples in all.
        fraction: of the examples, or of the groups, that validate: rounded, at least one where above 0.
        seed: the data's seed.
        groups: (n,) int64, what must not be torn apart (episodes).

    Returns:
        two int64 tensors that partition 0 … n-1.

    Raises:
        ValueError: nothing would be left to train on.

    >>> train, val = split_rows(10, fraction=0.2, seed=0)
    >>> len(train), len(val), sorted([*train.tolist(), *val.tolist()]) == list(range(10))
    (8, 2, True)
    """
    if fraction == 0:
        return torch.arange(n), torch.arange(0)
    names, unit = (torch.arange(n), torch.arange(n)) if groups is None else groups.unique(return_inverse=True)
    n_val = max(1, round(fraction * len(names)))
    if n_val >= len(names):
        unit_name = "example" if groups is None else "episode"
        raise ValueError(f"{fraction} of {len(names)} {unit_name}(s) for validation leaves none to train on")
    key = random.descendant(seed, SPLIT)
    validates = torch.zeros(len(names), dtype=torch.bool)
    validates[shuffled(key, len(names))[:n_val]] = True
    return (~validates[unit]).nonzero().squeeze(1), validates[unit].nonzero().squeeze(1)
