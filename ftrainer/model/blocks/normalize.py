"""Observations on a common scale, by statistics of the training split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from registry.issue import invalid, nearest


class Normalize(nn.Module):
    """`(x - mean) / (std + floor)` with the training split's statistics as buffers (`normalize`).

    Until they are filled the block passes its input on.

    Args:
        field: the field of a batch, dotted, whose statistics these are.
        floor: added to the standard deviation, so that a coordinate that hardly moved in the data does not explode.

    Raises:
        ConfigError: the floor is negative.

    >>> block = Normalize(field="obs", floor=0.0)
    >>> block.fit({"obs": {"mean": torch.tensor([1.0]), "std": torch.tensor([2.0])}})
    >>> block(torch.tensor([[5.0]]))
    tensor([[2.]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, field: str, floor: float = 1e-3) -> None:
        super().__init__()
        if floor < 0:
            raise invalid("must not be negative", "floor", found=repr(floor))
        self.field, self.floor = field, floor
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def fit(self, statistics: Mapping[str, Any]) -> None:
        """Take the field's `mean` and `std`.

        Raises:
            ConfigError: there are none for this field.
        """
        if self.field not in statistics:
            expected = "one of " + ", ".join(statistics) if statistics else "a data source that computes statistics"
            problem = "the data has no statistics of this field"
            names = nearest(self.field, statistics)
            raise invalid(problem, "field", found=repr(self.field), expected=expected, nearest=names)
        of = statistics[self.field]
        self.mean, self.std = (torch.as_tensor(of[name], dtype=self.mean.dtype).clone() for name in ("mean", "std"))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the trailing dimensions of `x`."""
        return (x - self.mean) / (self.std + self.floor)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"field={self.field!r}, floor={self.floor}"


def statistics_of(module: nn.Module) -> set[str]:
    """Names of the tensors that `normalize` blocks hold."""
    blocks = [(prefix, layer) for prefix, layer in module.named_modules() if isinstance(layer, Normalize)]
    return {f"{prefix}.{name}".lstrip(".") for prefix, layer in blocks for name, _ in layer.named_buffers()}
