"""Numbers that a step takes out of its tensors (`.item()`), made 0-d tensors again, which every backend computes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten
ITEM = aten._local_scalar_dense.default
ARITHMETIC: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        operator.add: aten.add.Tensor,
        operator.sub: aten.sub.Tensor,
        operator.mul: aten.mul.Tensor,
        operator.truediv: aten.div.Tensor,
        operator.neg: aten.neg.default,
    }
)
"""What Python code does with numbers, and the operators that do it with tensors."""
SECOND = (aten.add, aten.add_, aten.sub, aten.sub_, aten.mul, aten.mul_, aten.div, aten.div_)
PROMOTING: Mapping[Any, Any] = MappingProxyType(
    {packet.Tensor: packet.Tensor for packet in SECOND} | {aten.rsub.Scalar: aten.rsub.Tensor}
)
"""Operators that take a number for the second of two operands, and those that take a tensor there."""


def as_tensors(graph: fx.GraphModule) -> fx.GraphModule:
    """The graph with every number that it takes out of a tensor a float64 of no dimensions: Python's floats are those.

    A graph in which one goes somewhere else, a shape for instance, stays as it is.
    """
    numbers = [node for node in graph.graph.nodes if is_number(node)]
    if not numbers or not all(map(replaceable, numbers)):
        return graph
    for node in numbers:
        replace(node)
    graph.recompile()
    return graph


def taken(graph: fx.GraphModule) -> list[str]:
    """What is handed numbers of a tensor's in a graph where they stayed numbers."""
    users = [str(user.target) for node in graph.graph.nodes if is_number(node) for user in node.users]
    return list(dict.fromkeys(users))


def is_number(node: fx.Node) -> bool:
    """Whether a node's value is a number that only the run knows."""
    return isinstance(node.meta.get("val"), (torch.SymFloat, torch.SymInt, torch.SymBool))


def replaceable(node: fx.Node) -> bool:
    """Whether a number can be a tensor: a float, by known arithmetic, that goes where a tensor can."""
    known = node.target is ITEM or node.target in ARITHMETIC
    return known and isinstance(node.meta["val"], torch.SymFloat) and all(takes(user, node) for user in node.users)


def takes(user: fx.Node, number: fx.Node) -> bool:
    """Whether a node takes a tensor in a number's place."""
    return is_number(user) or (user.target in PROMOTING and user.args[0] is not number and len(user.args) == 2)


def replace(node: fx.Node) -> None:
    """Put a tensor of no dimensions in a number's place."""
    graph = node.graph
    with graph.inserting_before(node):
        new = (
            graph.call_function(aten._to_copy.default, (node.args[0],), {"dtype": torch.float64})
            if node.target is ITEM
            else graph.call_function(ARITHMETIC[node.target], ordered(node))
        )
    new.meta["val"] = like(source(node), torch.float64)
    for user in list(node.users):
        user.replace_input_with(node, new if is_number(user) else fitting(new, user))
        user.target = PROMOTING.get(user.target, user.target)
    graph.erase_node(node)


def ordered(node: fx.Node) -> tuple[Any, ...]:
    """The arguments of arithmetic, a constant that comes first made a tensor of its own."""
    first, *rest = node.args
    if isinstance(first, fx.Node):
        return (first, *rest)
    with node.graph.inserting_before(node):
        constant = node.graph.call_function(aten.scalar_tensor.default, (first,), {"dtype": torch.float64})
    constant.meta["val"] = like(source(node), torch.float64)
    return (constant, *rest)


def fitting(number: fx.Node, user: fx.Node) -> fx.Node:
    """The number in a dtype that leaves the result's what it was: a number decides it less than a tensor does."""
    other, result = user.args[0].meta["val"], user.meta["val"]  # type: ignore[union-attr]
    if other.is_floating_point() and other.dim():
        return number
    with user.graph.inserting_before(user):
        cast = user.graph.call_function(aten._to_copy.default, (number,), {"dtype": result.dtype})
    cast.meta["val"] = like(result, result.dtype)
    return cast


def source(node: fx.Node) -> Tensor:
    """The tensor that a number was taken from, in the end."""
    while not isinstance(node.meta.get("val"), Tensor):
        node = node.all_input_nodes[0]
    return node.meta["val"]


def like(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A fake tensor of no dimensions beside another fake tensor."""
    with x.fake_mode:  # type: ignore[attr-defined]
        return torch.empty((), dtype=dtype, device=x.device)
