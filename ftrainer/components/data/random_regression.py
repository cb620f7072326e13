"""Made-up regression: a fixed random linear map plus noise, for first runs and tests."""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import count
from ftrainer.functional import random
from ftrainer.functional.augment import Augmentation
from registry.spec import component

from .memory import MemoryData
from .order import CONTENTS

NOISE = 0.1


@component
class RandomRegression:
    """`y = W x + noise`, `x` standard normal, `W` scaled so that `y` has unit variance before the noise.

    Attributes:
        batch_size: examples in a batch.
        steps_per_epoch: training batches in an epoch.
        val_steps_per_epoch: validation batches; 0 for none.
        x_shape: of one input.
        y_shape: of one target.
        seed: decides the contents. The order is the run's.
        transforms: augmentations `(example, key) -> example`, run on the training examples inside the step.

    >>> data = RandomRegression(batch_size=8, steps_per_epoch=2, x_shape=[3], y_shape=[1]).open(seed=0, device="cpu")
    >>> {name: tuple(field.shape) for name, field in next(data.batches("train", 0)).items()}
    {'x': (8, 3), 'y': (8, 1)}
    """

    batch_size: int = attrs.field(validator=count(1))
    steps_per_epoch: int = attrs.field(validator=count(1))
    x_shape: tuple[int, ...] = attrs.field(validator=count(1))
    y_shape: tuple[int, ...] = attrs.field(validator=count(1))
    val_steps_per_epoch: int = attrs.field(default=0, validator=count(0))
    seed: int = 0
    transforms: tuple[Augmentation, ...] = ()

    def open(self, *, seed: int, device: Any) -> MemoryData:
        """Draw the contents and put them on the device."""
        n_train, n_val = self.steps_per_epoch * self.batch_size, self.val_steps_per_epoch * self.batch_size
        x, y = self._draw(n_train + n_val)
        rows = torch.arange(n_train + n_val, device=device)
        return MemoryData(
            fields={"x": x.to(device), "y": y.to(device)},
            train=rows[:n_train],
            val=rows[n_train:],
            batch_size=self.batch_size,
            seed=seed,
        )

    def _draw(self, n: int) -> tuple[Tensor, Tensor]:
        inputs, weights, noise = random.split(random.fold_in(random.key(self.seed), CONTENTS), 3)
        n_in, n_out = math.prod(self.x_shape), math.prod(self.y_shape)
        x = random.normal(inputs, (n, n_in))
        y = x @ random.normal(weights, (n_in, n_out)) / math.sqrt(n_in) + NOISE * random.normal(noise, (n, n_out))
        return x.reshape(n, *self.x_shape), y.reshape(n, *self.y_shape)
