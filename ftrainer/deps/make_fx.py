"""`make_fx` and fake tensors: the tracing APIs of torch that are semi-public."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

UNTRACEABLE: tuple[type[Exception], ...] = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    GuardOnDataDependentSymNode,
    UnsupportedOperatorException,
)
"""What fake tracing raises where a graph would have to depend on a tensor's value."""


def trace(fn: Callable[..., Sequence[Tensor]], leaves: Sequence[Tensor]) -> fx.GraphModule:
    """The ATen graph of `fn(*leaves)`, traced with fake tensors so that no value is baked in."""
    with torch.no_grad():
        graph = make_fx(fn, tracing_mode="fake", _allow_non_fake_inputs=True)(*leaves)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


@contextmanager
def declared() -> Iterator[None]:
    """Within, `torch.compiler.is_compiling()` is true: code that asks takes the branch that reads no tensor's value."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before
