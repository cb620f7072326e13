"""Rewrites of a captured graph for replay: the arithmetic of random words in Python's and NumPy's integers.

A draw is some twenty operations on int64, and so is every key it descends from. On one number Python does each in a
tenth of the time that a call into torch takes; on many, NumPy's shifts and products are faster than torch's.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from .commits import groups
from .products import value
from .writes import memories, written_midway

aten = torch.ops.aten

LEAST = 8
"""Operations that must hang together before their way out of torch and back pays."""


def wrapped(word: int) -> int:
    """An integer as int64 would hold it.

    >>> wrapped(2**63) == -(2**63)
    True
    """
    return (word + 2**63) % 2**64 - 2**63


def add(a: int, b: int) -> int:
    """The sum in int64."""
    return wrapped(a + b)


def mul(a: int, b: int) -> int:
    """The product in int64."""
    return wrapped(a * b)


def same(number: int, *shape: Any) -> int:
    """A number in another shape of one element."""
    del shape
    return number


def to_float32(array: np.ndarray) -> np.ndarray:
    """The same numbers in float32."""
    return array.astype(np.float32)


NUMBER: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        aten.add.Tensor: add,
        aten.as_strided.default: same,
        aten.bitwise_and.Scalar: operator.and_,
        aten.bitwise_and.Tensor: operator.and_,
        aten.bitwise_xor.Scalar: operator.xor,
        aten.bitwise_xor.Tensor: operator.xor,
        aten.mul.Tensor: mul,
        aten.__rshift__.Scalar: operator.rshift,
    }
)
"""What computes a 0-d result."""

ARRAY: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        aten.add.Tensor: np.add,
        aten.arange.start: np.arange,
        aten.bitwise_and.Scalar: np.bitwise_and,
        aten.bitwise_and.Tensor: np.bitwise_and,
        aten.bitwise_xor.Scalar: np.bitwise_xor,
        aten.bitwise_xor.Tensor: np.bitwise_xor,
        aten.lt.Scalar: np.less,
        aten.mul.Tensor: np.multiply,
        aten.__rshift__.Scalar: np.right_shift,
        aten._to_copy.default: to_float32,
        aten.unsqueeze.default: np.expand_dims,
        aten.view.default: np.reshape,
    }
)
"""What computes any other result."""

VIEWS = (aten.unsqueeze.default, aten.view.default)


def without_torch(graph: fx.Graph) -> None:
    """Compute integers outside of torch where enough of them hang together, in place in the graph; CPU only."""
    inside = {node for node in graph.nodes if is_integer(node)}
    links = [[node, *(arg for arg in node.all_input_nodes if arg in inside)] for node in graph.nodes if node in inside]
    changing = written_midway(graph)  # of which a number taken earlier would know nothing
    for together in groups(links):
        touched = {place for node in together for each in (node, *node.all_input_nodes) for place in memories(each)}
        if sum(node.target not in VIEWS for node in together) >= LEAST and not touched & changing:
            move_out(graph, [node for node in graph.nodes if node in together])


def is_integer(node: fx.Node) -> bool:
    """Whether a node computes integers, or what they decide, from integers alone."""
    fake = value(node)
    if node.op != "call_function" or not isinstance(fake, Tensor) or not fake.is_contiguous():
        return False
    if node.target is aten.arange.start:
        return fake.dtype == torch.int64 and all(isinstance(arg, int) for arg in node.args)
    of = {getattr(value(arg), "dtype", None) for arg in node.all_input_nodes}  # a Python number has none
    if node.target is aten._to_copy.default:
        return bool(fake.dim()) and of == {torch.bool} and node.kwargs == {"dtype": torch.float32}
    whole = not node.kwargs and all(isinstance(arg, (int, fx.Node, list, tuple)) for arg in node.args)
    return node.target in (ARRAY if fake.dim() else NUMBER) and whole and of == {torch.int64}


def move_out(graph: fx.Graph, nodes: list[fx.Node]) -> None:
    """Compute these nodes as numbers and arrays, and turn what others read back into tensors."""
    inside = set(nodes)
    for node in nodes:
        readers = [user for user in node.users if user not in inside]
        if readers:
            with graph.inserting_after(node):
                tensor = graph.call_function(torch.from_numpy if value(node).dim() else torch.tensor, (node,))
            tensor.meta = node.meta
            for reader in readers:
                reader.replace_input_with(node, tensor)
    given: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        for arg in node.all_input_nodes:
            if arg not in inside:
                given[arg] = given.get(arg) or taken_in(graph, arg)
                node.replace_input_with(arg, given[arg])
    made = {node for node in nodes if value(node).dim() and node.target not in VIEWS}
    for node in nodes:
        fake, over = value(node), spare(node, made)
        node.kwargs = {"out": over} if over else {}
        node.target = (ARRAY if fake.dim() else NUMBER)[node.target]


def taken_in(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """A tensor as a number or an array."""
    places = graph.find_nodes(op="placeholder")
    with graph.inserting_after(places[-1] if node in places else node):
        taken = graph.call_method("numpy" if value(node).dim() else "item", (node,))
    taken.meta = node.meta
    return taken


def spare(node: fx.Node, made: set[fx.Node]) -> fx.Node | None:
    """An operand that nobody reads afterwards and that the result can be written over."""
    if node not in made or node.target is aten._to_copy.default:
        return None
    like = value(node).shape, value(node).dtype
    for arg in node.args:
        if isinstance(arg, fx.Node) and arg in made and len(arg.users) == 1 and node.args.count(arg) == 1:
            return arg if (value(arg).shape, value(arg).dtype) == like else None
    return None
