"""What a graph's nodes may call besides modules: tensor functions by name."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def identity(x: Any) -> Any:
    """`x` itself."""
    return x


def reshape(x: Tensor, *shape: Any) -> Tensor:
    """`x.reshape(shape)`, the sizes given one by one or as a list."""
    return x.reshape(*shape)


def permute(x: Tensor, *dims: Any) -> Tensor:
    """`x.permute(dims)`, the dimensions given one by one or as a list."""
    return x.permute(*dims)


OPS: dict[str, Callable[..., Any]] = {
    "op.add": operator.add,
    "op.sub": operator.sub,
    "op.mul": operator.mul,
    "op.div": operator.truediv,
    "op.matmul": torch.matmul,
    "op.cat": torch.cat,
    "op.stack": torch.stack,
    "op.getitem": operator.getitem,
    "op.identity": identity,
    "op.mean": torch.mean,
    "op.sum": torch.sum,
    "op.reshape": reshape,
    "op.permute": permute,
    "op.flatten": torch.flatten,
    "op.squeeze": torch.squeeze,
    "op.unsqueeze": torch.unsqueeze,
    "op.split": torch.split,
    "op.chunk": torch.chunk,
    "op.softmax": torch.softmax,
}
