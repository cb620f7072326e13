"""What becomes of donated arguments: they are written over, after all that reads what they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ftrainer.functional import pytree

from .products import value
from .writes import last_writes, memories, memory

aten = torch.ops.aten
MOVING = (aten.clone.default, aten.view.default, aten._unsafe_view.default)
"""What computes nothing, and ends what puts elements in another order."""


def hand_over(old: Any, new: Any, out: Sequence[Any]) -> list[Any]:
    """Copy every leaf of `new` over the one of `old` at its place, and return `out` as it was before.

    Args:
        old: donated arguments.
        new: what becomes of them.
        out: leaves that are returned besides. Those, and leaves of `new`, that share memory with a donated leaf are
            copied aside first.

    Raises:
        ValueError: `new` is unlike `old` in structure, shapes, dtypes or constants.
    """
    pairs = list(zip(pytree.leaves(old), alike(old, new), strict=True))
    into = {memory(target) for target, _ in pairs if isinstance(target, Tensor)}
    kept = [aside(leaf, into) for leaf in out]
    moves = [(target, aside(leaf, into)) for target, leaf in pairs if not same(target, leaf)]
    for target, leaf in moves:
        target.copy_(leaf)
    return kept


def doubled(leaves: Sequence[Any]) -> list[tuple[int, int]]:
    """Places of tensors that lie where an earlier one lies, each after the place of that one.

    >>> x = torch.zeros(4)
    >>> doubled([x[:2], x[2:], x[1:3]])
    [(0, 2)]
    """
    seen: dict[int, list[tuple[int, int, int]]] = {}
    found = []
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor) and leaf.numel():
            reach = sum((n - 1) * step for n, step in zip(leaf.shape, leaf.stride(), strict=True))
            first = int(leaf.storage_offset()) * leaf.itemsize
            last = first + int(reach) * leaf.itemsize
            others = seen.setdefault(memory(leaf), [])
            found += [(other, place) for begin, end, other in others if first <= end and begin <= last][:1]
            others.append((first, last, place))
    return found


def apart_from_each_other(tree: Any) -> Any:
    """A tree of which no two tensors share memory: later ones are copied."""
    leaves, treedef = pytree.flatten(tree)
    for _, place in doubled(leaves):
        leaves[place] = leaves[place].clone()
    return pytree.unflatten(treedef, leaves)


def alike(old: Any, new: Any) -> list[Any]:
    """The leaves of `new`.

    Raises:
        ValueError: they are unlike those of `old`.
    """
    before, after = pytree.leaves(old), pytree.leaves(new)
    places, found = pytree.paths(old), pytree.paths(new)
    if places != found:
        raise ValueError(f"a donated argument keeps its structure; {', '.join(sorted({*places} ^ {*found}))} changed")
    for place, was, is_now in zip(places, map(described, before), map(described, after), strict=True):
        if was != is_now:
            raise ValueError(
                f"a donated argument keeps its shapes, dtypes and constants; {place} was {was}, is {is_now}"
            )
    return after


def described(leaf: Any) -> str:
    """What must stay of a leaf, as text."""
    if not isinstance(leaf, Tensor):
        return f"{type(leaf).__name__} {leaf!r}"
    return f"{str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)} on {leaf.device}"


def aside(leaf: Any, into: set[int]) -> Any:
    """A leaf, or a copy of it where it lies in memory that is written to."""
    return leaf.clone() if isinstance(leaf, Tensor) and memory(leaf) in into else leaf


def same(target: Any, leaf: Any) -> bool:
    """Whether nothing becomes of a leaf: it is no tensor, or shows the same elements."""
    if not isinstance(target, Tensor) or leaf is target:
        return True
    return memory(leaf) == memory(target) and all(
        getattr(leaf, name)() == getattr(target, name)()
        for name in ("storage_offset", "stride", "size", "is_conj", "is_neg")
    )


def apart(graph: fx.GraphModule) -> fx.GraphModule:
    """Compute what a donated argument takes over, from another one or in another order, in place in the graph.

    Inductor takes a clone, or a sum with 0, for the thing itself, even where that is written to before it is read.
    """
    copies: list[Any] = [node for node in last_writes(graph.graph) if node.target is aten.copy_.default]
    into = {place for copy in copies for place in memories(copy.args[0])}
    for copy in copies:
        source = copy.args[1]
        is_own = origin(source) is copy.args[0] and source.target not in MOVING
        if not is_own and memories(origin(source)) & into:
            with graph.graph.inserting_before(copies[0]):
                known = graph.graph.call_function(aten.eq.Tensor, (source, source))
                chosen = graph.graph.call_function(aten.where.self, (known, source, source))
            known.meta["val"], chosen.meta["val"] = value(source) == value(source), value(source).clone()
            copy.replace_input_with(source, chosen)
    graph.recompile()
    return graph


def origin(node: fx.Node) -> fx.Node:
    """What a node was made of, by operations of one tensor."""
    while node.op == "call_function" and len(node.all_input_nodes) == 1:
        (node,) = node.all_input_nodes
    return node
