"""Rewrites of a captured graph for replay: fewer operations where Python calls each."""

from __future__ import annotations

import heapq
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from ftrainer.deps import make_fx

from .commits import commit_in_blocks, commit_together
from .integers import without_torch
from .products import value
from .writes import Order, last_writes, order_of_writes

aten = torch.ops.aten

LISTS: Mapping[Any, Any] = MappingProxyType(
    {
        aten.add.Tensor: torch._foreach_add,
        aten.sub.Tensor: torch._foreach_sub,
        aten.mul.Tensor: torch._foreach_mul,
        aten.div.Tensor: torch._foreach_div,
        aten.lerp.Scalar: torch._foreach_lerp,
        aten.pow.Tensor_Scalar: torch._foreach_pow,
        aten.sqrt.default: torch._foreach_sqrt,
        aten.neg.default: torch._foreach_neg,
        aten.sign.default: torch._foreach_sign,
    }
)
"""Pointwise operations and what does the same to a list of tensors in one call."""


def for_replay(graph: fx.GraphModule) -> fx.GraphModule:
    """All rewrites that pay when Python calls every operation."""
    on_cpu = all(value(node).device.type == "cpu" for node in graph.graph.nodes if isinstance(value(node), Tensor))
    if on_cpu:
        commit_together(graph.graph)
        commit_in_blocks(graph)
        without_torch(graph.graph)
    forget_transposes(graph.graph)
    make_fx.forget_dead(graph.graph)  # what stands in blocks now, before it is joined with what is still read
    by_lists(graph.graph, numbers=on_cpu)
    make_fx.forget_dead(graph.graph)
    by_bindings(graph.graph)  # last, since of a Python function nobody knows that it writes
    graph.recompile()
    return graph


def forget_transposes(graph: fx.Graph) -> None:
    """Read a tensor itself where a transpose of its transpose is read."""
    for node in graph.find_nodes(op="call_function", target=aten.t.default):
        first = node.args[0]
        if first.target is aten.t.default:
            node.replace_all_uses_with(first.args[0])
            graph.erase_node(node)


# One call for the same operation on many leaves.


def by_lists(graph: fx.Graph, least: int = 3, numbers: bool = False) -> None:
    """Join equal pointwise operations on independent tensors into one call for all of them.

    Args:
        graph: changed in place.
        least: how many operations are worth joining.
        numbers: a 0-d tensor that all share may be read on the host, so that it is not converted for each of them.
    """
    last = [*last_writes(graph), graph.output_node()]
    groups: dict[Any, list[fx.Node]] = defaultdict(list)
    before, after = order_of_writes(graph)
    heights = height_of(graph, after)
    for node in graph.nodes:
        if (signature := alike(node)) is not None:
            groups[heights[node], signature].append(node)
    joined = {node: members for members in groups.values() if len(members) >= least for node in members}
    if joined:
        rebuild(graph, [*in_order(graph, joined, set(last), before, after), *last], joined, numbers)


def height_of(graph: fx.Graph, after: Order) -> dict[fx.Node, int]:
    """How many operations lie between a node and the end, so that nodes of one height are independent."""
    heights: dict[fx.Node, int] = {}
    for node in reversed(graph.nodes):
        heights[node] = 1 + max((heights[later] for later in {*node.users, *after.get(node, ())}), default=0)
    return heights


def in_order(
    graph: fx.Graph, joined: Mapping[fx.Node, list[fx.Node]], last: set[fx.Node], before: Order, after: Order
) -> list[fx.Node]:
    """The nodes before `last`, members of a group side by side and all else as near to where it stood as that allows.

    Edges lead from higher nodes to lower ones and a group has one height, so an order exists.
    """
    places = {node: index for index, node in enumerate(graph.nodes)}
    units = {node: joined.get(node, [node]) for node in graph.nodes if node not in last}
    waits = {
        id(unit): len({arg for node in unit for arg in (*node.all_input_nodes, *before.get(node, ()))})
        for unit in units.values()
    }
    ready = [(max(places[n] for n in unit), unit) for unit in unique(units.values()) if not waits[id(unit)]]
    heapq.heapify(ready)
    order: list[fx.Node] = []
    while ready:
        _, unit = heapq.heappop(ready)
        order += unit
        for node in unit:
            for waiting in unique(units[n] for n in {**node.users, **dict.fromkeys(after.get(node, ()))} if n in units):
                waits[id(waiting)] -= 1
                if not waits[id(waiting)]:
                    heapq.heappush(ready, (max(places[n] for n in waiting), waiting))
    return order


def unique(units: Iterable[list[fx.Node]]) -> list[list[fx.Node]]:
    """Each list once, by identity."""
    return list({id(unit): unit for unit in units}.values())


def alike(node: fx.Node) -> Any:
    """What must be equal for two nodes to be joined; None for one that stays alone.

    The first argument runs over the list. A second tensor runs along with it where it has its shape; a 0-d one is
    shared, so it must be the same node.
    """
    if node.op != "call_function" or node.target not in LISTS or node.kwargs or not isinstance(value(node), Tensor):
        return None
    first, *rest = node.args
    result = value(node)
    if result.dim() == 0 or not same_kind(first, result):
        return None
    shared = tuple(LIST if same_kind(arg, result) else arg for arg in rest)
    if any(isinstance(arg, fx.Node) and not is_scalar_tensor(arg) for arg in shared):
        return None
    return node.target, result.dtype, shared


LIST = object()
"""Stands in a signature for an argument that runs over the list."""


def same_kind(arg: Any, result: Tensor) -> bool:
    """Whether an argument is a tensor of the result's shape and dtype."""
    fake = value(arg) if isinstance(arg, fx.Node) else None
    return isinstance(fake, Tensor) and fake.shape == result.shape and fake.dtype == result.dtype


def is_scalar_tensor(node: fx.Node) -> bool:
    """Whether a node gives a 0-d tensor."""
    fake = value(node)
    return isinstance(fake, Tensor) and fake.dim() == 0


def rebuild(graph: fx.Graph, order: Sequence[fx.Node], joined: Mapping[fx.Node, list[fx.Node]], numbers: bool) -> None:
    """The same graph in the given order, joined nodes computed by their first member's call."""
    module = graph.owning_module
    new = fx.Graph(module)
    env: dict[fx.Node, fx.Node] = {}
    for node in order:
        if node in env:
            continue
        if node not in joined:
            env[node] = new.node_copy(node, env.__getitem__)
            continue
        members = joined[node]
        arguments = list_arguments(members, env.__getitem__)
        if numbers:
            arguments = tuple(new.call_method("item", (a,)) if isinstance(a, fx.Node) else a for a in arguments)
        call = new.call_function(LISTS[node.target], arguments)
        for index, member in enumerate(members):
            env[member] = new.call_function(operator.getitem, (call, index))
            env[member].meta = member.meta
    if module is not None:
        module.graph = new


def list_arguments(members: Sequence[fx.Node], mapped: Callable[[fx.Node], fx.Node]) -> tuple[Any, ...]:
    """The arguments of all members as those of one call: lists where they differ, themselves where they are shared."""
    shared = alike(members[0])[2]
    columns = list(zip(*(map_arg(member.args, mapped) for member in members), strict=True))
    return (list(columns[0]), *(list(c) if s is LIST else c[0] for c, s in zip(columns[1:], shared, strict=True)))


# Torch's own Python functions, which reach the same kernels in half the time that an operator object takes.


def mse_loss(x: Tensor, y: Tensor, reduction: int = 1) -> Tensor:
    """The binding's own default is another than the operator's."""
    result: Tensor = torch._C._nn.mse_loss(x, y, reduction)  # type: ignore[arg-type]  # an enumeration, not a name
    return result


BINDINGS: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        aten._softmax.default: torch._softmax,
        aten._unsafe_view.default: Tensor.view,
        aten.abs.default: torch.abs,
        aten.add.Tensor: torch.add,
        aten.add_.Tensor: Tensor.add_,
        aten.addmm.default: torch.addmm,
        aten.as_strided.default: torch.as_strided,
        aten.bitwise_and.Tensor: torch.bitwise_and,
        aten.bitwise_not.default: torch.bitwise_not,
        aten.bmm.default: torch.bmm,
        aten.cat.default: torch.cat,
        aten.clamp_min.default: torch.clamp_min,
        aten.clone.default: torch.clone,
        aten.convolution.default: torch.convolution,
        aten.copy_.default: Tensor.copy_,
        aten.div.Scalar: torch.div,
        aten.div.Tensor: torch.div,
        aten.eq.Scalar: torch.eq,
        aten.eq.Tensor: torch.eq,
        aten.exp.default: torch.exp,
        aten.expand.default: Tensor.expand,
        aten.full_like.default: torch.full_like,
        aten.ge.Scalar: torch.ge,
        aten.gt.Scalar: torch.gt,
        aten.le.Scalar: torch.le,
        aten.lerp.Scalar: torch.lerp,
        aten.log.default: torch.log,
        aten.lt.Scalar: torch.lt,
        aten.lt.Tensor: torch.lt,
        aten.mean.dim: torch.mean,
        aten.mm.default: torch.mm,
        aten.mse_loss.default: mse_loss,
        aten.mul.Tensor: torch.mul,
        aten.native_batch_norm.default: torch.native_batch_norm,
        aten.native_layer_norm.default: torch.native_layer_norm,
        aten.ne.Scalar: torch.ne,
        aten.neg.default: torch.neg,
        aten.ones_like.default: torch.ones_like,
        aten.permute.default: torch.permute,
        aten.pow.Scalar: torch.pow,
        aten.pow.Tensor_Scalar: torch.pow,
        aten.reciprocal.default: torch.reciprocal,
        aten.relu.default: torch.relu,
        aten.rsqrt.default: torch.rsqrt,
        aten.rsub.Scalar: torch.rsub,
        aten.select.int: torch.select,
        aten.sigmoid.default: torch.sigmoid,
        aten.sqrt.default: torch.sqrt,
        aten.squeeze.dim: torch.squeeze,
        aten.stack.default: torch.stack,
        aten.sub.Tensor: torch.sub,
        aten.sum.default: torch.sum,
        aten.sum.dim_IntList: torch.sum,
        aten.t.default: torch.t,
        aten.tanh.default: torch.tanh,
        aten.transpose.int: torch.transpose,
        aten.unsqueeze.default: torch.unsqueeze,
        aten.view.default: Tensor.view,
        aten.where.self: torch.where,
        aten.zeros_like.default: torch.zeros_like,
    }
)


def by_bindings(graph: fx.Graph) -> None:
    """Call torch's Python functions where they take the operator's arguments as they stand."""
    for node in graph.nodes:
        if node.op == "call_function" and node.target in BINDINGS:
            node.target = BINDINGS[node.target]
        elif node.target is aten._to_copy.default and is_conversion(node):
            node.target = Tensor.to


def is_conversion(node: fx.Node) -> bool:
    """Whether a copy is one to another dtype, and nothing else."""
    dtypes = [value(source).dtype for source in node.all_input_nodes]  # none where a Python number is converted
    return set(node.kwargs) == {"dtype"} and bool(dtypes) and dtypes[0] != node.kwargs["dtype"]
