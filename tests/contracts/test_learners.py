"""What must hold for every learner: pure, deterministic, the same by every backend, transactional."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch

from ftrainer import build, fit
from ftrainer.deps import inductor
from ftrainer.engine.stepper import accumulate, evaluate, update
from ftrainer.functional import pytree
from ftrainer.functional.jit import jit
from tests.contracts.learners import ROWS, configuration, missing
from tests.test_step import assert_trees_equal


def begin(key: str) -> tuple[Any, list[Any]]:
    state, data = build(configuration(key))
    batches = [pytree.map(lambda x: x.double(), batch) for batch in data.batches("train", 0)]
    return attrs.evolve(state, program=state.program.step_part()), batches


def test_every_learner_has_its_row() -> None:
    assert not missing()


@pytest.mark.parametrize("fn", [update, accumulate, evaluate])
@pytest.mark.parametrize("key", ROWS)
def test_arguments_stay_as_they_were_and_the_same_comes_out_twice(key: str, fn: Any) -> None:
    state, batches = begin(key)
    before = pytree.map(torch.clone, (state, batches[0]))
    first, second = fn(state, batches[0]), fn(state, batches[0])
    assert_trees_equal((state, batches[0]), before)
    assert_trees_equal(first, second)


@pytest.mark.parametrize("fn", [update, accumulate])
@pytest.mark.parametrize("key", ROWS)
def test_the_new_state_is_built_like_the_old(key: str, fn: Any) -> None:
    state, batches = begin(key)
    new, _ = fn(state, batches[0])
    assert pytree.structure(new) == pytree.structure(state)
    for path, old, leaf in zip(pytree.paths(state), pytree.leaves(state), pytree.leaves(new), strict=True):
        assert (leaf.shape, leaf.dtype, leaf.device) == (old.shape, old.dtype, old.device), path


@pytest.mark.parametrize("fn", [update, accumulate, evaluate])
@pytest.mark.parametrize("key", ROWS)
def test_traced_is_eager_and_a_second_call_does_not_retrace(key: str, fn: Any) -> None:
    state, batches = begin(key)
    traced = jit(fn, backend="trace")
    for batch in batches[:2]:
        assert_trees_equal(traced(state, batch), fn(state, batch))
    assert traced.traces == 1


@pytest.mark.parametrize("key", ROWS)
def test_compiled_is_eager(key: str) -> None:
    if reason := inductor.why_not("cpu"):
        pytest.skip(f"cannot compile here: {reason}")
    state, batches = begin(key)
    compiled = jit(update, backend="inductor")
    a = b = state
    for batch in batches:
        (a, _), (b, _) = compiled(a, batch), update(b, batch)
    torch.testing.assert_close(pytree.leaves(a), pytree.leaves(b), rtol=1e-12, atol=1e-12)
    assert_moves_nothing_but_the_tick(compiled, a, batches[1])
    assert compiled.traces == 1


@pytest.mark.parametrize("key", ROWS)
def test_the_loop_is_the_same_by_every_backend(key: str) -> None:
    config = configuration(key)
    runs = [fit(*build(config, {"run.compile": backend})) for backend in ("eager", "trace")]
    assert_trees_equal(*(attrs.evolve(run, program=None) for run in runs))


@pytest.mark.parametrize("key", ROWS)
def test_a_poisoned_batch_moves_nothing_but_the_tick(key: str) -> None:
    state, batches = begin(key)
    state, _ = update(state, batches[0])
    for backend in ("eager", "trace"):
        assert_moves_nothing_but_the_tick(jit(update, backend=backend), state, batches[1])


def assert_moves_nothing_but_the_tick(fn: Any, state: Any, batch: Any) -> None:
    for poison in (torch.nan, torch.inf):
        new, metrics = fn(state, {name: torch.full_like(x, poison) for name, x in batch.items()})
        assert metrics["skipped"] == 1
        assert_trees_equal(attrs.evolve(new, tick=state.tick), state)
