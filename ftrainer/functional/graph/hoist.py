"""Keep scalar arithmetic out of a compiled kernel's inner loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

LOOP = 16
"""Elements that a kernel handles at once: a scalar that serves fewer is not worth a buffer of its own."""


aten = torch.ops.aten
PASSING = (aten._to_copy.default, aten.view.default, aten.unsqueeze.default, aten.expand.default)


def hoist(graph: fx.GraphModule) -> fx.GraphModule:
    """Give float64 scalars that larger tensors read a place in memory, in place in the graph.

    Inductor inlines pointwise arithmetic into whatever reads it. For the scalars of a schedule or a bias correction
    that means a cosine and two powers, in float64, for every vector of every parameter: on 512×512 matrices AdamW
    under a cosine schedule took 1.8 times as long. A view by strides, which Inductor cannot look through, makes it
    compute them once. One row of scalars per member of a `vmap` counts as well.
    """
    for node in list(graph.graph.nodes):
        readers = [user for user in node.users if larger(user, node)] if scalar(node) else []
        if readers:
            fake = node.meta["val"]
            with graph.graph.inserting_after(node):
                place = graph.graph.call_function(
                    aten.as_strided.default, (node, list(fake.shape), list(fake.stride()))
                )
            place.meta = dict(node.meta)
            for user in readers:
                user.replace_input_with(node, place)
    graph.recompile()
    return graph


def scalar(node: fx.Node) -> bool:
    """Whether a node computes one number, or one per member of a batch, in float64 or from float64."""
    fake = node.meta.get("val")
    if node.op != "call_function" or not isinstance(fake, Tensor) or not fake.is_contiguous():
        return False
    return not fake.storage_offset() and in_double(node)  # of a part of a tensor Inductor would take the first part


def in_double(node: fx.Node) -> bool:
    """Whether a node's value was computed in float64: casts and views, which `vmap` puts in between, change nothing."""
    fake: Any = node.meta.get("val")
    if node.target in PASSING and isinstance(node.args[0], fx.Node):
        return in_double(node.args[0])
    return isinstance(fake, Tensor) and fake.dtype == torch.float64 and node.op == "call_function"


def larger(user: fx.Node, node: fx.Node) -> bool:
    """Whether a reader computes many elements from each of the node's; parameters in float64 are no scalars."""
    fake: Any = user.meta.get("val")
    own: Tensor = node.meta["val"]
    if not isinstance(fake, Tensor) or fake.numel() < LOOP * own.numel():
        return False
    return own.dim() == 0 or fake.dtype != torch.float64
