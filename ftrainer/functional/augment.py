"""Random transforms of single examples, run inside the step so that a batch costs no work outside of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.func import vmap

from . import pytree
from .random import fold_in, split
from .redirect import redirect

Augmentation = Callable[[Any, Tensor], Any]
"""`(example, key) -> example`, pure; an example is a batch without its leading dimension."""
HIDDEN = -1
"""What a transform's key is folded with for the draws that it makes through torch."""


def apply(transforms: Sequence[Augmentation], batch: Any, key: Tensor) -> Any:
    """Every example of a batch, transformed in order with randomness of its own.

    Args:
        transforms: each gets the example as the one before left it, and a key of its own.
        batch: a pytree of tensors with one leading dimension B.
        key: 0-d int64. What an example gets depends on it and on the example's place in the batch.

    Returns:
        A batch of the same structure.

    Raises:
        ValueError: leaves differ in their leading dimension.

    >>> import torch
    >>> from ftrainer.functional import random
    >>> noisy = lambda example, key: {"x": example["x"] + random.normal(key, example["x"].shape)}
    >>> apply([noisy], {"x": torch.zeros(4, 2)}, random.key(0))["x"].shape
    torch.Size([4, 2])
    """
    if not transforms:
        return batch
    lengths = {leaf.shape[0] for leaf in pytree.leaves(batch)}
    if len(lengths) != 1:
        raise ValueError(f"a batch has one leading dimension to transform along; found {sorted(lengths)}")
    return vmap(lambda example, own: one(transforms, example, own))(batch, split(key, lengths.pop()))


def one(transforms: Sequence[Augmentation], example: Any, key: Tensor) -> Any:
    """One example through every transform."""
    for index, transform in enumerate(transforms):
        own = fold_in(key, index)
        with redirect(fold_in(own, HIDDEN)):
            example = transform(example, own)
    return example
