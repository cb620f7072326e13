"""Mean and spread of every field of a split, in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ftrainer.functional import pytree


class Moments(NamedTuple):
    """What one pass carries: how many examples, their mean, their summed squared deviations from it."""

    n: int
    mean: Tensor
    squares: Tensor


def statistics(batches: Iterable[Any]) -> dict[str, dict[str, Tensor]]:
    """Mean and population standard deviation over the examples of all batches, of every floating field.

    Moments of batches are merged as by Chan, Golub & LeVeque (1979), so neither size nor offset costs precision.

    Args:
        batches: pytrees of tensors with the examples along the leading dimension; rows that `sample_mask` marks as
            padding do not count.

    Returns:
        `{dotted field: {"mean", "std"}}`, float64, shaped like one example.

    >>> statistics([{"x": torch.tensor([1.0, 3.0])}, {"x": torch.tensor([5.0])}])["x"]["mean"]
    tensor(3., dtype=torch.float64)
    """
    total: dict[str, Moments] = {}
    for batch in batches:
        mask = batch.get("sample_mask") if isinstance(batch, dict) else None
        for name, leaf in zip(pytree.paths(batch), pytree.leaves(batch), strict=True):
            if leaf.is_floating_point() and leaf.ndim:
                moments = _moments(leaf if mask is None else leaf[mask])
                name = name.replace("/", ".")
                total[name] = _merge(total[name], moments) if name in total else moments
    return {name: {"mean": m.mean, "std": (m.squares / m.n).sqrt()} for name, m in total.items()}


def _moments(values: Tensor) -> Moments:
    wide = values.to(torch.float64)
    mean = wide.mean(0)
    return Moments(len(values), mean, (wide - mean).square().sum(0))


def _merge(a: Moments, b: Moments) -> Moments:
    n, delta = a.n + b.n, b.mean - a.mean
    mean = a.mean + delta * (b.n / n)
    return Moments(n, mean, a.squares + b.squares + delta.square() * (a.n * b.n / n))
