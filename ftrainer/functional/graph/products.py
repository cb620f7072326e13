"""Rewrites of a captured graph's matrix products on the CPU: another library, or another side first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ftrainer.deps import onednn

aten = torch.ops.aten


def large_products(graph: fx.GraphModule) -> fx.GraphModule:
    """Have oneDNN compute the large float32 matrix products, on processors where it is the faster one."""
    if not onednn.is_faster():
        return graph
    for node in graph.graph.find_nodes(op="call_function", target=aten.mm.default):
        if is_large(node, *node.args):
            call_instead(node, onednn.matmul, (*node.args, None))
    for node in graph.graph.find_nodes(op="call_function", target=aten.addmm.default):
        bias, a, b = node.args
        if is_large(node, a, b) and not node.kwargs and value(bias).dim() == 1:
            call_instead(node, onednn.matmul, (a, b, bias))
    graph.recompile()
    return graph


def is_large(node: fx.Node, a: fx.Node, b: fx.Node) -> bool:
    """Whether a matrix product is one that oneDNN should compute."""
    result = value(node)
    n_products = value(a).shape[0] * value(a).shape[1] * value(b).shape[1]
    return result.dtype == torch.float32 and result.device.type == "cpu" and n_products >= onednn.LARGE


def call_instead(node: fx.Node, target: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Compute a node by another function."""
    with node.graph.inserting_before(node):
        new = node.graph.call_function(target, args)
    new.meta = node.meta
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)


THIN = 32
"""Columns up to which a product is thin: MKL computes its transpose up to twice as fast, (256, 64) by (64, 6) in 6 µs
instead of 13."""


def thin_products(graph: fx.GraphModule) -> fx.GraphModule:
    """Compute a tall and thin product as its transpose, which has long rows. It pays where `t` and `add` are fused."""
    for node in graph.graph.find_nodes(op="call_function", target=aten.mm.default):
        if is_thin(node, *node.args):
            turn(node, *node.args)
    for node in graph.graph.find_nodes(op="call_function", target=aten.addmm.default):
        bias, a, b = node.args
        if is_thin(node, a, b) and not node.kwargs:
            turn(node, a, b, bias)
    graph.recompile()
    return graph


def is_thin(node: fx.Node, a: fx.Node, b: fx.Node) -> bool:
    """Whether a product is quicker as its transpose: few columns, many rows, and a sum of some length."""
    (n_rows, n_summed), n_columns = value(a).shape, value(b).shape[1]
    return value(node).device.type == "cpu" and n_columns <= THIN < n_summed and n_columns < n_rows


def turn(node: fx.Node, a: fx.Node, b: fx.Node, bias: fx.Node | None = None) -> None:
    """Compute `a @ b + bias` as `(b.T @ a.T).T + bias`."""
    graph, fake = node.graph, value(node)
    with graph.inserting_before(node):
        sides = [derived(graph, aten.t.default, (side,), value(side).t()) for side in (b, a)]
        product = derived(graph, aten.mm.default, tuple(sides), fake.new_empty(fake.shape[::-1]))
        result = derived(graph, aten.t.default, (product,), value(product).t())
        if bias is not None:
            result = derived(graph, aten.add.Tensor, (result, bias), fake)
    node.replace_all_uses_with(result)
    graph.erase_node(node)


def derived(graph: fx.Graph, target: Callable[..., Any], args: tuple[Any, ...], fake: Any) -> fx.Node:
    """A new call, with what it would have given had it been traced."""
    node = graph.call_function(target, args)
    node.meta["val"] = fake
    return node


def value(node: fx.Node) -> Any:
    """What the node gave while it was traced: a fake tensor, or nothing for an output."""
    return node.meta.get("val")
