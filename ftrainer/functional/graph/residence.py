"""Constants of a captured graph where the rest of it is: on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from .products import value

aten = torch.ops.aten

COPIES = (aten._to_copy.default, aten.lift_fresh_copy.default, aten.clone.default, aten.detach.default)
"""What stands between a number of the program and the operation that reads it."""
TAKERS = (aten._to_copy.default, aten.index.Tensor)
"""What takes a tensor of the host to the device when it runs."""


def at_home(graph: fx.GraphModule) -> fx.GraphModule:
    """Put constants that a graph on a device reads from the host onto the device, in place in the graph.

    `torch.tensor(0.5)` in a loss lies on the host, and so does a Python integer that `vmap` makes a tensor of. A kernel
    that reads one waits for a copy, and a CUDA graph cannot hold that copy. What is returned stays where it is.
    """
    devices = [value(node).device for node in graph.graph.find_nodes(op="placeholder") if is_away(value(node))]
    return settle(graph, devices[0]) if devices else graph


def settle(graph: fx.GraphModule, device: torch.device) -> fx.GraphModule:
    """The same for a device that is known."""
    found: dict[fx.Node, Tensor] = {}
    for node in list(graph.graph.nodes):
        if (constant := known(graph, node, found)) is not None:
            found[node] = constant
    for node, constant in found.items():
        readers = [user for user in node.users if user not in found and takes(user, constant)]
        if readers:
            place = placed(graph, node, constant, device)
            for reader in readers:
                reader.replace_input_with(node, place)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def is_away(tensor: Any) -> bool:
    """Whether a tensor lies elsewhere than in the host's memory."""
    return isinstance(tensor, Tensor) and tensor.device.type != "cpu"


def known(graph: fx.GraphModule, node: fx.Node, found: Mapping[fx.Node, Tensor]) -> Tensor | None:
    """The value of a constant in the host's memory, or of its copy there; None for anything else."""
    if any(writes(user) for user in node.users):
        return None
    if node.op == "get_attr":
        held = getattr(graph, str(node.target), None)
        return held if isinstance(held, Tensor) and not is_away(held) else None
    if node.target not in COPIES or is_away(value(node)):
        return None
    source, *rest = node.args
    given = found.get(source) if isinstance(source, fx.Node) else torch.tensor(source)
    return None if given is None else node.target(given, *rest, **node.kwargs)  # type: ignore[operator, no-any-return]


def writes(node: fx.Node) -> bool:
    """Whether a node changes a tensor that it was given."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def takes(reader: fx.Node, constant: Tensor) -> bool:
    """Whether a reader on the device may read a constant there: lone numbers anywhere, tensors where they are moved."""
    result = value(reader)
    results = result if isinstance(result, (list, tuple)) else [result]
    return any(is_away(each) for each in results) and (constant.dim() == 0 or reader.target in TAKERS)


def placed(graph: fx.GraphModule, node: fx.Node, constant: Tensor, device: torch.device) -> fx.Node:
    """A constant on the device: a number is written there by the graph, a tensor is moved now and held."""
    with graph.graph.inserting_after(node):
        if constant.dim() == 0:
            place = graph.graph.call_function(aten.full.default, ([], constant.item()),
                                              {"dtype": constant.dtype, "device": device})  # fmt: skip
        else:
            name = f"{node.name}_at_home"
            graph.register_buffer(name, constant.to(device))
            place = graph.graph.get_attr(name)
    place.meta = {**node.meta, "val": value(node).to(device) if isinstance(value(node), Tensor) else constant}
    return place
