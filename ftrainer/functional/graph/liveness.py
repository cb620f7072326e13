"""How much memory a captured graph needs while it runs, by the lifetimes of what it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, fx

from ftrainer.deps import make_fx
from ftrainer.functional import pytree


def peak_bytes(fn: Callable[..., Any], *args: Any) -> int:
    """The most memory that results and intermediates of `fn(*args)` take at once, its arguments aside.

    Nothing is computed: `fn` is traced with fake tensors, and each storage counts from the operation that makes it to
    the last one that reads it. A compiler that fuses operations needs less.

    >>> import torch
    >>> peak_bytes(lambda x: (x * 2).relu().sum(), torch.ones(1000))
    8000
    """
    leaves, treedef = pytree.flatten(args)
    places = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def flat(*tensors: Tensor) -> list[Any]:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        return pytree.leaves(fn(*pytree.unflatten(treedef, filled)))

    return peak_of(make_fx.trace(flat, [leaves[place] for place in places]))


def peak_of(graph: fx.GraphModule) -> int:
    """The same for a graph that was traced with fake tensors."""
    nodes = list(graph.graph.nodes)
    given = {key for node in nodes if node.op in ("placeholder", "get_attr") for key, _ in storages(node)}
    last_use = {key: when for when, node in enumerate(nodes) for read in (node, *node.all_input_nodes)
                for key, _ in storages(read)}  # fmt: skip
    alive: dict[int, int] = {}
    peak = 0
    for when, node in enumerate(nodes):
        alive |= {key: size for key, size in storages(node) if key not in given}
        peak = max(peak, sum(alive.values()))
        alive = {key: size for key, size in alive.items() if last_use[key] > when}
    return peak


def storages(node: fx.Node) -> Iterable[tuple[int, int]]:
    """Identity and bytes of each storage that a node's value lies in."""
    values = node.meta.get("val")
    tensors = values if isinstance(values, (list, tuple)) else [values]
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            storage = tensor.untyped_storage()
            yield storage._cdata, storage.nbytes()


def tree_bytes(tree: Any) -> int:
    """What a tree's tensors take.

    >>> import torch
    >>> tree_bytes({"a": torch.zeros(3), "b": torch.zeros((), dtype=torch.int64)})
    20
    """
    return sum(leaf.numel() * leaf.element_size() for leaf in pytree.leaves(tree) if isinstance(leaf, Tensor))
