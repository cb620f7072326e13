"""Long updates by blocks: the numbers of the whole, all of them or none, and nothing read after it was written."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from ftrainer.functional import random, step
from ftrainer.functional.graph.commits import BLOCK
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


UPDATES: dict[str, Any] = {
    "each from itself": lambda s, g: {"a": s["a"] + g, "b": s["b"].lerp(g, 0.1)},
    "an old value is read after its leaf moved": lambda s, g: {"a": s["a"] * 2 + g, "b": s["b"] - s["a"]},
    "a new value is read by the next leaf": lambda s, g: {"a": (a := s["a"].lerp(g, 0.2)), "b": s["b"] + a.sqrt()},
    "a new value ends where another is made": lambda s, g: {"a": (a := s["b"] * g), "b": (a / 3).abs()},
    "they trade places": lambda s, g: {"a": s["b"] * 1 + g, "b": s["a"] * 1 + g},
    "both become the same": lambda s, g: {"a": (a := s["a"] + g), "b": a},
    "a view of one is read by the other": lambda s, g: {"a": s["a"] + g, "b": s["b"] + s["a"].view(LONG, 2) * 0.5},
    "through double precision": lambda s, g: {"a": (s["a"].double() * 3 + g).float(), "b": s["b"] * g},
}


@pytest.mark.parametrize("name", UPDATES)
def test_long_leaves_are_written_in_place_in_the_right_order(name: str) -> None:
    def move(state: dict[str, Tensor], g: Tensor) -> tuple[dict[str, Tensor]]:
        ok = g.sum() < torch.inf
        return ({k: torch.where(ok, new, state[k]) for k, new in UPDATES[name](state, g).items()},)

    moved, k = jit(move, backend="trace", donate=[0]), random.key(3)
    state = {name: random.uniform(random.fold_in(k, index), (LONG, 2)) for index, name in enumerate("ab")}
    g, expected = random.uniform(k, (LONG, 2)), tree_map(torch.clone, state)
    for _ in range(3):
        (expected,) = move(expected, g)
        moved(state, g)
        assert_trees_equal(state, expected)
