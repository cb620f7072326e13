"""Rewrites of a captured graph for replay: one decision on the new state, and long updates in blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from .products import value
from .writes import last_writes, memories

aten = torch.ops.aten

POINTWISE: Mapping[Any, Callable[..., Tensor]] = MappingProxyType(
    {
        aten.abs.default: torch.abs,
        aten.add.Tensor: torch.add,
        aten.div.Tensor: torch.div,
        aten.lerp.Scalar: torch.lerp,
        aten.maximum.default: torch.maximum,
        aten.mul.Tensor: torch.mul,
        aten.neg.default: torch.neg,
        aten.pow.Tensor_Scalar: torch.pow,
        aten.sign.default: torch.sign,
        aten.sqrt.default: torch.sqrt,
        aten.sub.Tensor: torch.sub,
    }
)
"""Operations that a chain of updates is made of, as functions that take `out`."""

BLOCK = 2**16
"""Elements that a long chain of updates works on at a time: its temporaries then stay in the processor's cache."""


@fx.node.has_side_effect
def commit(ok: Tensor, old: list[Tensor], new: list[Tensor]) -> None:
    """Overwrite `old` by `new`, or leave all of it: what a host without a device to wait for decides for nothing."""
    if ok:
        torch._foreach_copy_(old, new)


def commit_together(graph: fx.Graph) -> None:
    """Turn `old.copy_(where(ok, new, old))`, leaf by leaf, into one decision on `ok` and one copy of all leaves.

    What follows an old leaf that is written to as well is chosen before, and all other copies are made after: a commit
    reads its leaves late.
    """
    last: list[Any] = [node for node in last_writes(graph) if node.target is aten.copy_.default]
    into = {place for copy in last for place in memories(copy.args[0])}
    groups: dict[fx.Node, list[tuple[fx.Node, fx.Node]]] = defaultdict(list)
    for copy in last:
        old, chosen = copy.args[:2]
        is_choice = chosen.target == aten.where.self and chosen.args[2] is old and len(chosen.users) == 1
        is_fresh = is_choice and not memories(chosen.args[1]) & into
        if is_fresh and value(chosen.args[0]).dim() == 0:  # members of a stack decide one by one
            groups[chosen.args[0]].append((copy, chosen))
    if groups:
        ok, pairs = max(groups.items(), key=lambda group: len(group[1]))
        old, new = [copy.args[0] for copy, _ in pairs], [chosen.args[1] for _, chosen in pairs]
        with graph.inserting_before(last[0]):
            graph.call_function(commit, (ok, old, new))
        for copy, chosen in pairs:
            graph.erase_node(copy)
            graph.erase_node(chosen)


def commit_in_blocks(module: fx.GraphModule) -> None:
    """Take the long chains of updates out of each commit, to be computed and written block by block."""
    for index, node in enumerate(module.graph.find_nodes(op="call_function", target=commit)):
        for number, part in enumerate(separable(node)):
            name = f"blocks_{index}_{number}"
            module.add_submodule(name, Blocks(part))
            with module.graph.inserting_before(node):
                module.graph.call_module(name, (node.args[0], part.blocks(), part.scalars))
            kept = [pair for pair in zip(*node.args[1:], strict=True) if pair[0] not in part.old]
            node.args = (node.args[0], [old for old, _ in kept], [new for _, new in kept])
        if not node.args[1]:
            module.graph.erase_node(node)


class Part:
    """Leaves of a state that are computed together, from tensors of their shape and from 0-d ones.

    Args:
        leaves: each with the node that computes what becomes of it.
        steps: all nodes on the way, in order.
    """

    def __init__(self, leaves: Sequence[tuple[fx.Node, fx.Node]], steps: Sequence[fx.Node]):
        self.old, self.new, self.steps = [old for old, _ in leaves], [new for _, new in leaves], list(steps)
        given = unique(node for step in steps for node in step.all_input_nodes if node not in set(steps))
        self.inputs = [node for node in given if value(node).dim()]
        self.scalars = [node for node in given if not value(node).dim()]

    def blocks(self) -> list[fx.Node]:
        """What is cut: the old leaves, then what else is read."""
        return unique([*self.old, *self.inputs])

    def is_long(self) -> bool:
        """Whether blocks pay, and can be cut: everything lies in memory in one piece and in one order."""
        fakes = [value(node) for node in (*self.inputs, *self.old)]
        alike = all(fake.shape == fakes[0].shape and fake.is_contiguous() for fake in fakes)
        return alike and fakes[0].numel() >= 2 * BLOCK

    def body(self) -> fx.GraphModule:
        """The steps alone, a function of one block of each old leaf and input, and of the scalars, written in place.

        A step writes over the leaf that it moves if nobody reads that afterwards, else over an operand that was made
        on the way and ends here.
        """
        graph, places = fx.Graph(), [*self.blocks(), *self.scalars]
        env = {node: graph.placeholder(f"x{index}") for index, node in enumerate(places)}
        leaf_of, last = dict(zip(self.new, self.old, strict=True)), self.last_reads()
        for index, step in enumerate(self.steps):
            leaf, temporary = leaf_of.get(step), [arg for arg in step.all_input_nodes if arg in self.steps]
            ending = [arg for arg in temporary if last[arg] == index and arg not in leaf_of]
            over = leaf if leaf is not None and last.get(owner(leaf), -1) <= index else next(iter(ending), None)
            env[step] = graph.call_function(POINTWISE[step.target], map_arg(step.args, env.__getitem__))
            if over is not None and value(over).dtype == value(step).dtype:
                env[step].kwargs = {"out": env[over]}
        for leaf, new in zip(self.old, self.new, strict=True):
            if env[new].kwargs.get("out") is not env[leaf]:
                graph.call_function(aten.copy_.default, (env[leaf], env[new]))
        graph.output(None)
        return fx.GraphModule(nn.Module(), graph)

    def last_reads(self) -> dict[fx.Node, int]:
        """The number of the last step that reads each node, or a view of it."""
        return {owner(arg): index for index, step in enumerate(self.steps) for arg in step.all_input_nodes}


class Blocks(nn.Module):
    """A part, run block by block where the commit says yes."""

    _is_impure = True

    def __init__(self, part: Part):
        super().__init__()
        self.body = part.body()

    def forward(self, ok: Tensor, blocks: list[Tensor], scalars: list[Tensor]) -> None:
        """Overwrite the leaves that come first among `blocks`; all of them are of one shape and contiguous."""
        if ok:
            for cut in zip(*(x.view(-1).split(BLOCK) for x in blocks), strict=True):
                self.body.forward(*cut, *scalars)


def separable(commit: fx.Node) -> list[Part]:
    """The long parts of a commit that share no tensor, but 0-d ones, with anything outside or with each other."""
    pairs: list[tuple[fx.Node, fx.Node]] = list(zip(*commit.args[1:], strict=True))  # type: ignore[arg-type]
    steps = exclusive(commit, [new for _, new in pairs])
    links = [[node, *(owner(arg) for arg in node.all_input_nodes if value(arg).dim())] for node in steps]
    parts = []
    for whole in groups([*links, *([owner(old), new] for old, new in pairs)]):
        leaves = [pair for pair in pairs if pair[1] in whole]
        if leaves and all(new in set(steps) for _, new in leaves):
            parts.append(Part(leaves, [step for step in steps if step in whole]))
    return [part for part in parts if part.is_long()]


def owner(node: fx.Node) -> fx.Node:
    """The node whose memory a view shows; any other node itself."""
    schema = getattr(node.target, "_schema", None)
    is_view = schema is not None and any(r.alias_info and not r.alias_info.is_write for r in schema.returns)
    return owner(node.all_input_nodes[0]) if is_view else node


def groups(links: Iterable[Sequence[fx.Node]]) -> list[set[fx.Node]]:
    """Nodes that hang together by links."""
    parent: dict[fx.Node, fx.Node] = {}

    def root(node: fx.Node) -> fx.Node:
        while parent.setdefault(node, node) is not node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for first, *others in links:
        for other in others:
            parent[root(other)] = root(first)
    found: dict[fx.Node, set[fx.Node]] = defaultdict(set)
    for node in list(parent):
        found[root(node)].add(node)
    return list(found.values())


def exclusive(commit: fx.Node, new: Iterable[fx.Node]) -> list[fx.Node]:
    """The pointwise nodes behind a commit's new leaves whose results go nowhere else, in order."""
    found: set[fx.Node] = set()
    waiting = list(new)
    while waiting:
        node = waiting.pop()
        shape_of = value(node)
        is_step = node.op == "call_function" and node.target in POINTWISE and not node.kwargs and shape_of.dim()
        if is_step and node not in found and all(user is commit or user in found for user in node.users):
            found.add(node)
            waiting += [arg for arg in node.all_input_nodes if value(arg).dim()]
    return [node for node in commit.graph.nodes if node in found]


def unique(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    """Each node once, in order."""
    return list(dict.fromkeys(nodes))
