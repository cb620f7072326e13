"""Pure augmentations: `(example, key) -> example`, an example being a batch without its leading dimension."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import at_least, between, count, one_of
from ftrainer.functional import random
from registry.spec import component

Example = Mapping[str, Any]


@component
class GaussianNoise:
    """Add independent normal noise to a field (`transform.gaussian_noise`).

    Attributes:
        std: standard deviation of the noise, in the field's unit.
        field: dotted name of a floating point field, of any shape.

    >>> example = {"x": torch.zeros(3)}
    >>> GaussianNoise(std=0.0)(example, random.key(0))["x"]
    tensor([0., 0., 0.])
    """

    std: float = attrs.field(validator=at_least(0))
    field: str = "x"

    def __call__(self, example: Example, key: Tensor) -> Example:
        """The example with its field changed."""
        return changed(example, self.field, lambda x: x + self.std * random.normal(key, x.shape, floating(self, x)))


@component
class RandomFlip:
    """Reverse a field along one dimension, for some of the examples (`transform.random_flip`).

    Attributes:
        p: probability of the flip.
        dim: dimension to reverse, counted from the end: -1 mirrors an image left to right.
        field: dotted name of the field.

    >>> RandomFlip(p=1.0)({"x": torch.tensor([1, 2, 3])}, random.key(0))["x"]
    tensor([3, 2, 1])
    """

    p: float = attrs.field(default=0.5, validator=between(0, 1))
    dim: int = -1
    field: str = "x"

    def __call__(self, example: Example, key: Tensor) -> Example:
        """The example with its field changed."""
        flips = random.bernoulli(key, self.p)
        return changed(example, self.field, lambda x: torch.where(flips, x.flip(self.dim), x))


@component
class RandomShift:
    """Shift an image by whole pixels and crop it to its size: DrQ's augmentation (Kostrikov et al., 2020).

    Attributes:
        pixels: the largest shift, up, down, left and right; every one up to it is equally likely.
        fill: what enters at the border: `edge` repeats the outermost pixel, `zero` is black.
        field: dotted name of a field of shape (…, height, width).

    >>> image = torch.arange(9.0).reshape(1, 3, 3)
    >>> RandomShift(pixels=1)({"x": image}, random.key(0))["x"].shape
    torch.Size([1, 3, 3])
    """

    pixels: int = attrs.field(default=4, validator=count(1))
    fill: str = attrs.field(default="edge", validator=one_of("edge", "zero"))
    field: str = "x"

    def __call__(self, example: Example, key: Tensor) -> Example:
        """The example with its field changed."""
        down, right = random.randint(key, (2,), -self.pixels, self.pixels + 1).unbind()
        return changed(example, self.field, lambda x: self.shift(self.shift(x, down, -2), right, -1))

    def shift(self, x: Tensor, by: Tensor, dim: int) -> Tensor:
        """`x` moved along one dimension by a 0-d number of places."""
        size = x.shape[dim]
        source = torch.arange(size, device=x.device) - by
        moved = x.index_select(dim, source.clamp(0, size - 1))
        if self.fill == "edge":
            return moved
        inside = ((source >= 0) & (source < size)).reshape(size, *(1 for _ in range(-dim - 1)))
        return torch.where(inside, moved, torch.zeros_like(moved))


def changed(example: Example, field: str, change: Callable[[Tensor], Tensor]) -> Example:
    """The example with one field, by dotted name, replaced by a function of itself.

    Raises:
        KeyError: there is no such field.
    """
    name, _, rest = field.partition(".")
    if name not in example:
        raise KeyError(f"no field {name!r} to transform among {', '.join(example)}")
    value = changed(example[name], rest, change) if rest else change(example[name])
    return {**example, name: value}


def floating(transform: GaussianNoise, x: Tensor) -> torch.dtype:
    """The dtype of a field that takes noise.

    Raises:
        TypeError: it holds integers.
    """
    if not x.dtype.is_floating_point:
        raise TypeError(f"noise needs a floating point field; {transform.field!r} holds {x.dtype}")
    return x.dtype
