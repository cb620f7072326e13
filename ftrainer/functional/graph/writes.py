"""Which operations of a captured graph write into tensors that they were given, and what therefore keeps its order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, fx

from ftrainer.deps.make_fx import SILENT

aten = torch.ops.aten

Order = dict[fx.Node, set[fx.Node]]
"""For a node, others that it must stand before or after, though neither reads what the other makes."""


def writes(node: fx.Node) -> bool:
    """Whether a node changes a tensor that it was given."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return node.op in ("call_function", "call_module") and node.is_impure()
    return schema.is_mutable or schema.name in SILENT


def memory(tensor: Tensor) -> int:
    """What two tensors share whenever writing to one may be seen through the other."""
    return tensor.untyped_storage()._cdata


def memories(node: fx.Node) -> set[int]:
    """The memory of all that a node gives, as far as that is known; an array is known by the tensor that it shows."""
    found = node.meta.get("val")
    return {
        memory(each) for each in (found if isinstance(found, (list, tuple)) else [found]) if isinstance(each, Tensor)
    }


def written(node: fx.Node) -> set[int]:
    """The memory that a node writes to; of operators that do not say which, that of every argument."""
    if not writes(node):
        return set()
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return {place for arg in node.all_input_nodes for place in memories(arg)}
    found = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | node.kwargs
    into = [found[a.name] for a in schema.arguments if a.alias_info and a.alias_info.is_write and a.name in found]
    return {place for arg in into for each in nodes_in(arg) for place in memories(each)}


def nodes_in(arg: object) -> Iterator[fx.Node]:
    """The nodes of an argument: itself, or those of a list."""
    for each in arg if isinstance(arg, (list, tuple)) else (arg,):
        if isinstance(each, fx.Node):
            yield each


def last_writes(graph: fx.Graph) -> list[fx.Node]:
    """The operations that a graph ends with, before its output, which write and whose results nobody reads."""
    found: list[fx.Node] = []
    for node in reversed(graph.nodes):
        if node.op != "output" and (not writes(node) or node.users):
            break
        found.insert(0, node)
    return [node for node in found if node.op != "output"]


def written_midway(graph: fx.Graph) -> set[int]:
    """The memory that other operations than the last ones write to."""
    last = set(last_writes(graph))
    return {place for node in graph.nodes if node not in last for place in written(node)}


def order_of_writes(graph: fx.Graph) -> tuple[Order, Order]:
    """What must stand before each node, and after it, so that all that is read is what was there in this order."""
    before: Order = defaultdict(set)
    changing, writer, readers = written_midway(graph), dict[int, fx.Node](), defaultdict[int, list[fx.Node]](list)
    for node in graph.nodes:
        touched = memories(node) | {place for arg in node.all_input_nodes for place in memories(arg)}
        into = written(node)
        for place in touched & changing:
            earlier = [*([writer[place]] if place in writer else []), *(readers[place] if place in into else [])]
            before[node].update(earlier)
            readers[place].append(node)
            if place in into:
                writer[place], readers[place] = node, []
    after: Order = defaultdict(set)
    for node, earlier_ones in before.items():
        earlier_ones.discard(node)
        for earlier_one in earlier_ones:
            after[earlier_one].add(node)
    return before, after
