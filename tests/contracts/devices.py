"""A device that no machine need have: what a step does on it is traced and looked at, never run.

Fake tensors say of themselves that they lie on a GPU, and an operation on tensors of two devices is an error as it is
there. Torch differentiates no tensor of a GPU that is not there, so what takes gradients is traced on `meta` instead,
torch's own device for tensors that nobody computes: to a step both are somewhere else than the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from ftrainer.functional import pytree
from ftrainer.functional.jit import capture, fill
from ftrainer.functional.residence import at_home

FORWARD = "cuda"
"""Where everything is traced that takes no gradients."""
BACKWARD = "cuda" if torch.cuda.is_available() else "meta"
"""Where gradients are."""


class Elsewhere(FakeTensorMode):
    """Makes fake tensors of a device; `meta` is one like any other here."""

    def __init__(self, device: str):
        super().__init__(allow_non_fake_inputs=True)
        self.allow_meta, self.device = True, device

    def moved(self, tree: Any) -> Any:
        """A tree with its tensors on the device."""
        with self:
            return pytree.map(self.alike, tree)

    def alike(self, leaf: Any) -> Any:
        """A tensor of the same shape, strides and dtype on the device; anything else as it is."""
        if not isinstance(leaf, Tensor):
            return leaf
        return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=self.device)


def check_stays(fn: Callable[..., Any], *args: Any, device: str = BACKWARD) -> fx.GraphModule:
    """Trace `fn` on a device and raise where its graph has anything to do with another.

    Args:
        fn: a pure function of pytrees.
        args: on the CPU; only their shapes are read.
        device: where they are taken to be.
    """
    graph, results = traced(fn, args, device)
    assert list(strays(graph, device)) == []
    assert {leaf.device.type for leaf in pytree.leaves(results) if isinstance(leaf, Tensor)} <= {device}
    return graph


def traced(fn: Callable[..., Any], args: Any, device: str) -> tuple[fx.GraphModule, Any]:
    """The graph of `fn` on a device, as a step's is captured, and its fake results."""
    leaves, treedef = pytree.flatten(Elsewhere(device).moved(args))
    results: list[Any] = []

    def flat(*tensors: Tensor) -> list[Any]:
        results[:] = [fn(*pytree.unflatten(treedef, fill(leaves, tensors)))]
        return pytree.leaves(results[0])

    graph = capture(flat, [leaf for leaf in leaves if isinstance(leaf, Tensor)], "the function")
    return at_home(graph), results[0]


def strays(graph: fx.GraphModule, device: str) -> Iterator[str]:
    """What in a graph lies elsewhere: a kernel that reads it waits for a copy, and no CUDA graph can hold it."""
    for node in graph.graph.nodes:
        for tensor in tensors_of(graph, node):
            if tensor.device.type != device:
                users = ", ".join(str(user.target) for user in node.users)
                yield f"{node.target} {tuple(tensor.shape)} on {tensor.device}, read by {users}"


def tensors_of(graph: fx.GraphModule, node: fx.Node) -> list[Tensor]:
    """The tensors that a node stands for."""
    value = getattr(graph, str(node.target)) if node.op == "get_attr" else node.meta.get("val")
    return [leaf for leaf in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(leaf, Tensor)]
