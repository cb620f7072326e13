"""Writing in place inside a replayed function: everything is read and written in the order of the code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from ftrainer.functional import pytree, random
from ftrainer.functional.jit import jit

NORM = nn.BatchNorm1d(4).double()


def rows(xs: list[Tensor]) -> Any:
    out = torch.zeros(3, 4)
    out[0], out[1] = xs[0], xs[1]
    return out * 2, [(x + 1) * 3 for x in xs]


def early_view(xs: list[Tensor]) -> Any:
    made = torch.zeros(4)
    seen = made[0]
    before = seen * 5
    made.fill_(7)
    return seen * 2, before, [(x + 1) * 3 for x in xs]


def words(xs: list[Tensor]) -> Any:
    made = torch.zeros(4, dtype=torch.int64)
    seen, array = made[0], made[:3]
    made.fill_(7)
    return random.uniform(seen, (5,)), random.word(array, array + 1), xs[0]


def in_place_chain(xs: list[Tensor]) -> Any:
    ys = [x + 1 for x in xs]
    for y in ys:
        y.mul_(3).relu_()
    return [y * 2 for y in ys], [y - 1 for y in ys]


def statistics(xs: list[Tensor]) -> Any:
    """A module whose result nobody reads, and one that is differentiated."""

    def loss(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        held = {name: leaf.clone() for name, leaf in NORM.named_buffers()}
        functional_call(NORM, held, (x * 2,))
        return functional_call(NORM, held, (x,)).square().mean(), held

    slope, held = grad(loss, has_aux=True)(torch.stack(xs).double())
    return [(x + 1) * 3 for x in xs], {name: leaf * 1 for name, leaf in held.items()}, slope, held


def chosen(xs: list[Tensor]) -> Any:
    made = torch.zeros(4)
    made.copy_(torch.where(xs[0][1] > 0, xs[0], made))
    return made.sum(), [(x + 1) * 3 for x in xs]


@pytest.mark.parametrize("fn", [rows, early_view, words, in_place_chain, statistics, chosen])
def test_a_replayed_function_writes_in_the_order_of_its_code(fn: Callable[..., Any]) -> None:
    xs = [torch.arange(4.0) + index for index in range(4)]
    expected = fn([x.clone() for x in xs])
    found = jit(fn, backend="trace")(xs)
    for a, b in zip(pytree.leaves(expected), pytree.leaves(found), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)
