"""Long updates by blocks: the numbers of the whole, all of them or none, and nothing read after it was written."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from ftrainer.functional import random, step
from ftrainer.functional.commits import BLOCK
from ftrainer.functional.jit import jit
from ftrainer.functional.pytree import map as tree_map
from ftrainer.functional.state import Program, StepPolicy, TrainState
from tests.test_step import assert_trees_equal, update
from tests.toys import Linear

LONG = BLOCK + 1000


def wide(guard: str = "grads") -> tuple[TrainState, dict[str, Tensor]]:
    """A toy state with more weights than two blocks hold, and a batch that fits it."""
    k, learner = random.key(7), Linear(tau=0.1)
    params = {"model": {"w": random.normal(k, (LONG, 2)), "b": torch.zeros(2)}}
    state = step.init_state(learner, k, params, {"model": {}})
    batch = {"x": random.normal(k, (4, LONG)), "y": random.normal(k, (4, 2))}
    return attrs.evolve(state, program=Program(learner=learner, policy=StepPolicy(guard=guard))), batch


@pytest.mark.parametrize("guard", ["grads", "loss", "off"])
def test_a_long_leaf_moves_as_a_short_one(guard: str) -> None:
    (a, batch), donated = wide(guard=guard), jit(update, backend="trace", donate=[0])
    b = tree_map(torch.clone, a)
    for _ in range(3):
        a, expected = update(a, batch)
        b, metrics = donated(b, batch)
        assert_trees_equal(metrics, expected)
    assert_trees_equal(a, b)


def test_a_long_leaf_stays_where_the_guard_says_so() -> None:
    state, batch = wide()
    before = tree_map(torch.clone, state)
    state, metrics = jit(update, backend="trace", donate=[0])(state, {**batch, "y": batch["y"] * torch.nan})
    assert metrics["skipped"] == 1
    assert_trees_equal(attrs.evolve(state, tick=before.tick), before)


def chosen(ok: Tensor, old: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.where(ok, new[name], leaf) for name, leaf in old.items()}


def traded(state: dict[str, Tensor], ok: Tensor) -> tuple[dict[str, Tensor]]:
    return (chosen(ok, state, {"a": state["b"] + 1, "b": state["a"] * 2}),)


def viewed(state: dict[str, Tensor], ok: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    new = {"a": state["a"] + 1, "b": state["a"].view(2, -1).view(-1) * state["b"]}
    return chosen(ok, state, new), new["a"].sum()


@pytest.mark.parametrize("fn", [traded, viewed])
def test_leaves_that_need_each_other_are_read_before_they_are_written(fn: Any) -> None:
    state = {"a": torch.arange(2.0 * LONG), "b": torch.full((2 * LONG,), 3.0)}
    expected = fn(state, torch.tensor(True))
    out = jit(fn, backend="trace", donate=[0])(state, torch.tensor(True))
    assert_trees_equal(out, expected)
