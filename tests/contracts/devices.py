"""A GPU that no machine need have: what a step does on it is traced and looked at, never computed.

Fake tensors say of themselves that they lie on a GPU, and an operation on tensors of two devices is an error as it is
there. Torch differentiates no tensors of a GPU that is not there, so a function is first captured on `meta`, torch's
own device for tensors that nobody computes, which is as little the host as a GPU is. The graph, which holds the way
back as plain operations, then runs again on fake tensors of the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from ftrainer.functional import pytree
from ftrainer.functional.graph.capture import capture
from ftrainer.functional.graph.residence import at_home
from ftrainer.functional.jit import fill

NOWHERE, GPU = "meta", "cuda"


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


class OnGPU(fx.Interpreter):
    """Runs a graph that was captured on `meta` with fake tensors of a GPU, and notes what each node gives."""

    def __init__(self, graph: fx.GraphModule, mode: Elsewhere):
        super().__init__(graph)
        self.mode = mode

    def run_node(self, node: fx.Node) -> Any:
        """One node, on the GPU where it was made on `meta`."""
        node.args, node.kwargs = fx.node.map_aggregate((node.args, node.kwargs), retarget)  # type: ignore[assignment]
        if node.op == "get_attr":
            held = getattr(self.module, str(node.target))
            result = self.mode.from_tensor(held) if held.device.type == "cpu" else self.mode.alike(held)
        else:
            result = super().run_node(node)
        node.meta["val"] = result
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Batch statistics by what returns them: writing them asks the driver, which need not be there."""
        if target is torch.ops.aten.native_batch_norm.default:
            return torch.ops.aten._native_batch_norm_legit_functional.default(*args, **kwargs)[:3]
        return super().call_function(target, args, kwargs)


def retarget(argument: Any) -> Any:
    """The GPU, where an argument is the device that stands for it."""
    is_nowhere = isinstance(argument, torch.device) and argument.type == NOWHERE
    return torch.device(GPU, 0) if is_nowhere else argument


def check_stays(fn: Callable[..., Any], *args: Any, device: str = NOWHERE) -> fx.GraphModule:
    """Raise where `fn`, somewhere else than on the host, has anything to do with tensors of the host.

    Args:
        fn: a pure function of pytrees.
        args: on the CPU; only their shapes are read.
        device: where it is captured; the GPU, where it takes no gradients.

    Returns:
        Its graph, as a step's is captured.
    """
    graph = traced(fn, *args, device=device)
    check_graph(graph, device)
    return graph


def check_on_gpu(fn: Callable[..., Any], *args: Any) -> None:
    """The same, and once more for the GPU itself, with gradients and all."""
    graph, mode = check_stays(fn, *args), Elsewhere(GPU)
    given = [leaf for leaf in pytree.leaves(mode.moved(args)) if isinstance(leaf, Tensor)]
    with mode, torch.no_grad():
        OnGPU(graph, mode).run(*given)
    check_graph(graph, GPU)


def traced(fn: Callable[..., Any], *args: Any, device: str = NOWHERE) -> fx.GraphModule:
    """The graph of `fn` on a device."""
    leaves, treedef = pytree.flatten(Elsewhere(device).moved(args))

    def flat(*tensors: Tensor) -> list[Any]:
        return pytree.leaves(fn(*pytree.unflatten(treedef, fill(leaves, tensors))))

    return at_home(capture(flat, [leaf for leaf in leaves if isinstance(leaf, Tensor)], "the function"))


def check_graph(graph: fx.GraphModule, device: str) -> None:
    """Raise where a graph reads or returns a tensor of the host."""
    assert list(strays(graph, device)) == []
    results = next(iter(graph.graph.find_nodes(op="output"))).all_input_nodes
    assert {node.meta["val"].device.type for node in results} <= {device}


def strays(graph: fx.GraphModule, device: str = NOWHERE) -> Iterator[str]:
    """What in a graph lies on the host: a kernel that reads it waits for a copy, and no CUDA graph can hold it."""
    for node in graph.graph.nodes:
        value = node.meta.get("val")
        for tensor in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(tensor, Tensor) and tensor.device.type != device:
                users = ", ".join(str(user.target) for user in node.users)
                yield f"{node.target} {tuple(tensor.shape)} on {tensor.device}, read by {users}"
