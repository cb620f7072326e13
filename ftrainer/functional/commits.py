"""Rewrites of a captured graph for replay: one decision on the new state, and long updates in blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, fx, nn

from .products import value

aten = torch.ops.aten

POINTWISE = {
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.lerp.Scalar, aten.pow.Tensor_Scalar,
    aten.sqrt.default, aten.neg.default, aten.sign.default, aten.abs.default, aten.maximum.default,
}  # fmt: skip
"""Operations that a chain of updates is made of."""

BLOCK = 2**16
"""Elements that a long chain of updates works on at a time: its temporaries then stay in the processor's cache."""


@fx.node.has_side_effect
def commit(ok: Tensor, old: list[Tensor], new: list[Tensor]) -> None:
    """Overwrite `old` by `new`, or leave all of it: what a host without a device to wait for decides for nothing."""
    if ok:
        torch._foreach_copy_(old, new)


def commit_together(graph: fx.Graph) -> None:
    """Turn `old.copy_(where(ok, new, old))`, leaf by leaf, into one decision on `ok` and one copy of all leaves."""
    groups: dict[fx.Node, list[tuple[fx.Node, fx.Node]]] = defaultdict(list)
    for copy in graph.find_nodes(op="call_function", target=aten.copy_.default):
        old, chosen = copy.args[:2]
        is_choice = chosen.target == aten.where.self and chosen.args[2] is old and len(chosen.users) == 1
        if is_choice and not copy.users and value(chosen.args[0]).dim() == 0:  # members of a stack decide one by one
            groups[chosen.args[0]].append((copy, chosen))
    for ok, pairs in groups.items():
        old, new = [copy.args[0] for copy, _ in pairs], [chosen.args[1] for _, chosen in pairs]
        with graph.inserting_before(graph.output_node()):
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
                module.graph.call_module(name, (node.args[0], part.old, part.inputs, part.scalars))
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

    def is_long(self) -> bool:
        """Whether blocks pay, and can be cut: everything lies in memory in one piece and in one order."""
        fakes = [value(node) for node in (*self.inputs, *self.old)]
        alike = all(fake.shape == fakes[0].shape and fake.is_contiguous() for fake in fakes)
        return alike and fakes[0].numel() >= 2 * BLOCK

    def body(self) -> fx.GraphModule:
        """The steps alone: a function of one block of each input, and of the scalars."""
        graph = fx.Graph()
        env = {node: graph.placeholder(f"x{i}") for i, node in enumerate((*self.inputs, *self.scalars))}
        for step in self.steps:
            env[step] = graph.node_copy(step, env.__getitem__)
        graph.output([env[node] for node in self.new])
        return fx.GraphModule(nn.Module(), graph)


class Blocks(nn.Module):
    """A part, run block by block where the commit says yes."""

    _is_impure = True

    def __init__(self, part: Part):
        super().__init__()
        self.body = part.body()

    def forward(self, ok: Tensor, old: list[Tensor], inputs: list[Tensor], scalars: list[Tensor]) -> None:
        """Overwrite `old`; all of `old` and `inputs` are of one shape and contiguous."""
        if not ok:
            return
        n_old, run = len(old), self.body.forward
        for blocks in zip(*(x.view(-1).split(BLOCK) for x in (*old, *inputs)), strict=True):
            torch._foreach_copy_(list(blocks[:n_old]), run(*blocks[n_old:], *scalars))


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
