"""Numbers out of tensors: compiled like the rest of a step where a tensor can stand for them, else refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ftrainer.deps import inductor, make_fx
from ftrainer.functional.graph.capture import TraceError
from ftrainer.functional.graph.numbers import as_tensors, taken
from ftrainer.functional.jit import jit

X = torch.tensor([0.3, 0.7])
STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "arithmetic": lambda x: x * (1 - x.sum().item() * 2) / 3 - x.max().item(),
    "reflected": lambda x: x.sum().item() - x,
    "quotient": lambda x: (2 / x.sum().item()) * x + -x.max().item(),
    "of integers": lambda x: (x * 10).long() * x.sum().item(),
    "of no dimensions": lambda x: x.sum() * x.max().item(),
    "of few bits": lambda x: x.bfloat16() * x.max().item(),
    "in place": lambda x: x.clone().mul_(x.sum().item()),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_number_becomes_a_tensor_and_nothing_else_changes(name: str) -> None:
    fn = STEPS[name]
    graph = as_tensors(make_fx.trace(lambda x: [fn(x)], [X]))
    assert taken(graph) == []
    for x in (X, 3 * X):
        (ours,), theirs = graph(x), fn(x)
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


@pytest.mark.skipif(inductor.why_not("cpu") is not None, reason="there is no C++ compiler")
def test_compiled_code_takes_numbers_from_tensors() -> None:
    compiled = jit(STEPS["arithmetic"], backend="inductor")
    for x in (X, 3 * X):
        torch.testing.assert_close(compiled(x), STEPS["arithmetic"](x))


def test_a_number_that_must_stay_one_is_replayed_and_not_compiled() -> None:
    def clamp(x: Tensor) -> Tensor:
        return x.clamp(max=x.mean().item())

    assert torch.equal(jit(clamp, backend="trace")(3 * X), clamp(3 * X))
    with pytest.raises(
        TraceError, match=r"aten\.clamp[\s\S]*instead of calling \.item\(\), or set `run\.compile: trace`"
    ):
        jit(clamp, backend="inductor")(X)
