"""`make_fx` and fake tensors: the tracing APIs of torch that are semi-public.

They bring sympy along, a second to load, so they are imported by the first trace: checking a configuration needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, fx
from torch.distributions import Distribution

REFUSED = (
    ".numpy() is not supported for tensor subclasses",
    "Cannot access data pointer of Tensor",
    "vmap: It looks like you're calling .item()",
    "vmap: It looks like you're attempting to use a Tensor in some data-dependent control flow",
)
"""How the errors begin that have no class of their own: NumPy is handed a tensor, a value is asked for under `vmap`."""

SILENT = ("aten::native_batch_norm", "aten::cudnn_batch_norm", "aten::miopen_batch_norm")
"""Operators that write to running statistics, of which their schemas say nothing."""


def wants_value(error: BaseException) -> bool:
    """Whether an error says that a graph would have to depend on a tensor's value."""
    from torch._subclasses import fake_tensor  # noqa: PLC0415
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode  # noqa: PLC0415

    classes = (
        fake_tensor.DataDependentOutputException,
        fake_tensor.DynamicOutputShapeException,
        fake_tensor.UnsupportedOperatorException,
        GuardOnDataDependentSymNode,
    )
    return isinstance(error, classes) or (isinstance(error, RuntimeError) and str(error).startswith(REFUSED))


def trace(fn: Callable[..., Sequence[Tensor]], leaves: Sequence[Tensor]) -> fx.GraphModule:
    """The ATen graph of `fn(*leaves)`, traced with fake tensors so that no value is baked in."""
    from torch.fx.experimental.proxy_tensor import make_fx  # noqa: PLC0415

    with torch.no_grad():
        graph = make_fx(fn, tracing_mode="fake", _allow_non_fake_inputs=True)(*leaves)
    forget_dead(graph.graph)
    forget_unused(graph)
    graph.recompile()
    return graph


def forget_dead(graph: fx.Graph) -> None:
    """Drop what nobody reads, in place, unless it writes."""
    graph.eliminate_dead_code(is_effect)


def is_effect(node: fx.Node) -> bool:
    """Whether a node changes a tensor that it was given, or has another effect besides its result."""
    schema = getattr(node.target, "_schema", None)
    if node.op == "call_function" and getattr(schema, "name", None) in SILENT:
        return True
    return node.is_impure()


def forget_unused(graph: fx.GraphModule) -> None:
    """Drop tensors that the trace met and the graph does not read; stored code takes each of them for an input more."""
    read = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    held = {**dict(graph.named_parameters()), **dict(graph.named_buffers())}
    for name in held.keys() - read:
        delattr(graph, name)


@contextmanager
def declared() -> Iterator[None]:
    """Within, `torch.compiler.is_compiling()` is true: code that asks takes the branch that reads no tensor's value.

    Distributions, which do not ask, take their arguments unread, as they do once Dynamo is imported.
    """
    before, checked = torch.compiler._is_compiling_flag, Distribution._validate_args
    torch.compiler._is_compiling_flag, Distribution._validate_args = True, False
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag, Distribution._validate_args = before, checked
