"""Scalars out of compiled loops: the graph changes, the numbers do not."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from ftrainer.components.optim.adamw import AdamW
from ftrainer.components.optim.scheduled import Scheduled
from ftrainer.components.schedules.cosine import Cosine
from ftrainer.deps import make_fx
from ftrainer.functional.graph.hoist import hoist
from ftrainer.functional.jit import jit

from .contracts.transforms import context

OPTIMIZER = Scheduled(transform=AdamW(lr=0.1), schedule=Cosine(steps=10))


def step(p: Tensor, g: Tensor, count: Tensor) -> Tensor:
    """One AdamW step of one parameter, from fresh moments."""
    params = {"model": {"w": p}}
    updates, _ = OPTIMIZER.update({"model": {"w": g}}, OPTIMIZER.init(params), params, context(count))
    return p + updates["model"]["w"]


def hoisted(graph: fx.GraphModule) -> list[fx.Node]:
    return graph.graph.find_nodes(op="call_function", target=torch.ops.aten.as_strided.default)


def traced(fn: Any, *args: Tensor) -> fx.GraphModule:
    return make_fx.trace(lambda *tensors: [fn(*tensors)], args)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scalars_get_a_place_and_numbers_stay(dtype: torch.dtype) -> None:
    args = torch.linspace(-1, 1, 64, dtype=dtype), torch.ones(64, dtype=dtype), torch.tensor(3)
    graph = traced(step, *args)
    before = graph(*args)[0]
    assert hoisted(hoist(graph))
    torch.testing.assert_close(graph(*args)[0], before, rtol=0, atol=0)


def test_one_scalar_per_member_counts_too() -> None:
    args = torch.ones(3, 64), torch.ones(3, 64), torch.arange(3)
    graph = hoist(traced(torch.vmap(step), *args))
    assert {tuple(node.meta["val"].shape) for node in hoisted(graph)} & {(3,), (3, 1)}
    torch.testing.assert_close(graph(*args)[0], torch.vmap(step)(*args), rtol=0, atol=0)


def test_what_serves_few_elements_or_is_no_double_stays_inline() -> None:
    few = traced(step, torch.ones(4), torch.ones(4), torch.tensor(3))
    single = traced(lambda x, y: x * torch.cos(y), torch.ones(64), torch.tensor(1.0))
    assert not hoisted(hoist(few))
    assert not hoisted(hoist(single))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # by torch's own imports
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")
def test_compiled_code_gives_the_same_step() -> None:
    args = torch.linspace(-1, 1, 64, dtype=torch.float64), torch.ones(64, dtype=torch.float64), torch.tensor(3)
    torch.testing.assert_close(jit(step, backend="inductor")(*args), step(*args), rtol=1e-12, atol=1e-12)
