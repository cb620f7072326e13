"""Tensors among the arguments of a module, as numbers until the module is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from registry.spec import Deferred

from .assemble import rewrite


def numbers(values: float | Sequence[Any], dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of numbers: of one, of a list of them, or of rows of one length.

    >>> numbers((0.1, 0.9)), numbers(((1, 2),)).shape
    (tensor([0.1000, 0.9000]), torch.Size([1, 2]))
    """
    return torch.tensor(values, dtype=dtype)


def typed(spec: Deferred, dtype: torch.dtype) -> Deferred:
    """The spec with its tensors in another dtype, exactly as they are written.

    >>> typed(Deferred(key="numbers", factory=numbers, args=(0.1,)), torch.float64).build()
    tensor(0.1000, dtype=torch.float64)
    """

    def change(nested: Deferred) -> Deferred:
        return attrs.evolve(nested, kwargs={"dtype": dtype}) if nested.factory is numbers else nested

    return spec if not dtype.is_floating_point else rewrite(spec, change)
