"""Random words in a replayed step: Python's and NumPy's integers give what torch's give, and overwrite nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import vmap

from ftrainer.deps import make_fx
from ftrainer.functional import random
from ftrainer.functional.graph.integers import NUMBER, wrapped
from ftrainer.functional.graph.passes import for_replay
from ftrainer.functional.jit import jit

WORDS = st.integers(-(2**63), 2**63 - 1)
DRAWS: dict[str, Callable[[Tensor, tuple[int, ...]], Tensor]] = {
    "bits": random.bits,
    "uniform": random.uniform,
    "uniform64": lambda key, shape: random.uniform(key, shape, torch.float64),
    "normal": random.normal,
    "exponential": random.exponential,
    "mask": lambda key, shape: random.bernoulli(key, 0.3, shape).to(torch.float32) * 1.25,
    "bernoulli64": lambda key, shape: random.bernoulli(key, 0.3, shape).to(torch.float64),
    "randint": lambda key, shape: random.randint(key, shape, -3, 1000),
    "children": lambda key, shape: random.bits(random.fold_in(random.split(key)[1], 5), shape),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (5,), (3, 4), (2, 1, 3)])
def test_replayed_draws_are_the_eager_ones(name: str, shape: tuple[int, ...]) -> None:
    def draw(key: Tensor) -> Tensor:
        return DRAWS[name](random.fold_in(key, 1), shape)

    replayed = jit(draw, backend="trace")
    for seed in (0, 1, 2**62):
        key = random.key(seed)
        expected = draw(key)
        found = replayed(key)
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
        assert torch.equal(key, random.key(seed))
    assert replayed.traces == 1


def test_draws_of_members_are_replayed_alike() -> None:
    keys = random.split(random.key(3), 4)
    draw = vmap(lambda key: random.uniform(random.fold_in(key, 2), (6,)))
    before = keys.clone()
    assert torch.equal(jit(draw, backend="trace")(keys), draw(keys))
    assert torch.equal(keys, before)


def test_words_are_drawn_without_torch() -> None:
    graph = make_fx.trace(lambda key: [random.uniform(random.fold_in(key, 1), (100,))], [random.key(0)])
    n_before = len([node for node in graph.graph.nodes if "aten" in str(node.target)])
    kept = [str(node.target) for node in for_replay(graph).graph.nodes if "aten" in str(node.target)]
    assert n_before > 30
    assert len(kept) <= 2


def test_an_argument_that_is_read_as_an_array_is_not_written_over() -> None:
    def stirred(words: Tensor) -> Tensor:
        for shift in (7, 11, 13):
            words = (words ^ (words >> shift)) * 1234567 + 3
        return words

    words = torch.arange(10)
    assert torch.equal(jit(stirred, backend="trace")(words), stirred(words))
    assert torch.equal(words, torch.arange(10))


@given(a=WORDS, b=WORDS)
def test_numbers_wrap_as_tensors_do(a: int, b: int) -> None:
    x, y = torch.tensor(a), torch.tensor(b)
    for operation, ours in NUMBER.items():
        if "Tensor" in str(operation):
            expected: Any = operation(x, y)
            assert ours(a, b) == expected.item()
    assert NUMBER[torch.ops.aten.__rshift__.Scalar](a, 5) == (x >> 5).item()
    assert wrapped(a + 2**64) == a
