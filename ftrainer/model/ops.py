"""What a graph's nodes may call besides modules: tensor functions by name.

Parameters have torch's names, and annotations by which a node's literal arguments are checked before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Operand = Tensor | float | bool
"""One side of an arithmetic operation."""
Dims = int | tuple[int, ...] | None
"""One dimension, several, or all of them."""


def add(input: Operand, other: Operand) -> Any:
    """`input + other`."""
    return input + other


def sub(input: Operand, other: Operand) -> Any:
    """`input - other`."""
    return input - other


def mul(input: Operand, other: Operand) -> Any:
    """`input * other`."""
    return input * other


def div(input: Operand, other: Operand) -> Any:
    """`input / other`."""
    return input / other


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product `input @ other`."""
    return input @ other


def cat(tensors: tuple[Tensor, ...], dim: int = 0) -> Tensor:
    """Tensors one behind the other along a dimension that they have."""
    return torch.cat(tensors, dim)


def stack(tensors: tuple[Tensor, ...], dim: int = 0) -> Tensor:
    """Tensors of one shape along a new dimension."""
    return torch.stack(tensors, dim)


def getitem(input: Any, index: int | str | tuple[Any, ...]) -> Any:
    """`input[index]`: a position, a name, or a list of positions."""
    return input[index]


def identity(input: Any) -> Any:
    """`input` itself."""
    return input


def mean(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The mean over dimensions, or over everything."""
    return torch.mean(input, dim, keepdim)


def total(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The sum over dimensions, or over everything."""
    return torch.sum(input, dim, keepdim)


def reshape(input: Tensor, *sizes: int | tuple[int, ...], shape: tuple[int, ...] = ()) -> Tensor:
    """`input.reshape(shape)`, the sizes given one by one, as a list, or by name."""
    given: Any = (*sizes, *shape)
    return input.reshape(*given)


def permute(input: Tensor, *order: int | tuple[int, ...], dims: tuple[int, ...] = ()) -> Tensor:
    """`input.permute(dims)`, the dimensions given one by one, as a list, or by name."""
    given: Any = (*order, *dims)
    return input.permute(*given)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Several neighbouring dimensions as one."""
    return torch.flatten(input, start_dim, end_dim)


def squeeze(input: Tensor, dim: Dims = None) -> Tensor:
    """Without dimensions of size 1: those given, or all of them."""
    return torch.squeeze(input) if dim is None else torch.squeeze(input, dim)


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a further dimension of size 1."""
    return torch.unsqueeze(input, dim)


def split(tensor: Tensor, split_size_or_sections: int | tuple[int, ...], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of one size, or of the sizes in a list."""
    sizes = split_size_or_sections
    return torch.split(tensor, sizes if isinstance(sizes, int) else list(sizes), dim)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """That many pieces."""
    return torch.chunk(input, chunks, dim)


def softmax(input: Tensor, dim: int) -> Tensor:
    """Shares that add up to 1 along a dimension."""
    return torch.softmax(input, dim)


OPS: dict[str, Callable[..., Any]] = {
    "op.add": add,
    "op.sub": sub,
    "op.mul": mul,
    "op.div": div,
    "op.matmul": matmul,
    "op.cat": cat,
    "op.stack": stack,
    "op.getitem": getitem,
    "op.identity": identity,
    "op.mean": mean,
    "op.sum": total,
    "op.reshape": reshape,
    "op.permute": permute,
    "op.flatten": flatten,
    "op.squeeze": squeeze,
    "op.unsqueeze": unsqueeze,
    "op.split": split,
    "op.chunk": chunk,
    "op.softmax": softmax,
}
