"""The smallest useful plugin: one component, one `register`.

Copy this file, rename the key, and name your module under `imports:`.
"""

from __future__ import annotations

from typing import Any

import torch

from ftrainer.api import MemoryData
from registry import Registry, component, invalid


@component
class ConstantRegression:
    """The same number everywhere: a model that learns has nothing to learn but one bias.

    Attributes:
        batch_size: examples in a batch.
        steps_per_epoch: training batches in an epoch.
        val_steps_per_epoch: validation batches; 0 for none.
        x_shape: of one input, all ones.
        y_shape: of one target.
        value: every entry of every target.

    >>> data = ConstantRegression(batch_size=4, steps_per_epoch=2, x_shape=[3], y_shape=[1], value=0.5)
    >>> next(data.open(seed=0, device="cpu").batches("train", epoch=0))["y"].unique()
    tensor([0.5000])
    """

    batch_size: int
    steps_per_epoch: int
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    val_steps_per_epoch: int = 0
    value: float = 1.0

    def __attrs_post_init__(self) -> None:
        for name, low in (("batch_size", 1), ("steps_per_epoch", 1), ("val_steps_per_epoch", 0)):
            if getattr(self, name) < low:
                raise invalid("too small", name, found=str(getattr(self, name)), expected=f"at least {low}")

    def open(self, *, seed: int, device: Any) -> MemoryData:
        """Make the contents on the device; `seed` orders them."""
        n_train, n_val = self.steps_per_epoch * self.batch_size, self.val_steps_per_epoch * self.batch_size
        rows = torch.arange(n_train + n_val, device=device)
        x = torch.ones(len(rows), *self.x_shape, device=device)
        y = torch.full((len(rows), *self.y_shape), self.value, device=device)
        return MemoryData(
            fields={"x": x, "y": y}, train=rows[:n_train], val=rows[n_train:], batch_size=self.batch_size, seed=seed
        )


def register(registry: Registry) -> Registry:
    """What `imports: [extensions.example_plugin]` adds."""
    return registry.register("data.constant_regression", ConstantRegression)
