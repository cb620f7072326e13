"""The step: equal to torch's own loop, transactional, and pure."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from ftrainer.components.optim.adamw import AdamW
from ftrainer.components.optim.sgd import SGD
from ftrainer.functional import phases, pytree, random, step
from ftrainer.functional.state import TrainState, evolve_at
from registry import component
from tests.toys import Doubled, Linear, linear_batch, linear_state


def update(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
    return state.program.learner.update(state, batch)


def torch_reference(state: TrainState, batches: list[Any], clip: float | None = None) -> dict[str, Tensor]:
    w, b = (state.params["model"][name].clone().requires_grad_() for name in ("w", "b"))
    optimizer = torch.optim.AdamW([w, b], lr=0.01)
    for batch in batches:
        optimizer.zero_grad()
        (batch["x"] @ w + b - batch["y"]).square().mean().backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_([w, b], clip)
        optimizer.step()
    return {"w": w.detach(), "b": b.detach()}


def assert_trees_equal(a: Any, b: Any) -> None:
    assert pytree.structure(a) == pytree.structure(b)
    for path, x, y in zip(pytree.paths(a), pytree.leaves(a), pytree.leaves(b), strict=True):
        assert torch.equal(x, y), path


@pytest.mark.parametrize("clip", [None, 0.5])
def test_update_equals_torchs_loop(clip: float | None) -> None:
    state = linear_state(clip_norm=clip)
    batches = [linear_batch(i) for i in range(100)]
    expected = torch_reference(state, batches, clip)
    for batch in batches:
        state, metrics = update(state, batch)
    for name, value in expected.items():
        torch.testing.assert_close(state.params["model"][name], value, rtol=0, atol=1e-13)
    assert int(state.step) == int(state.tick) == 100
    assert set(metrics) == {"loss", "grad_norm", "lr", "skipped"}


def test_update_leaves_its_arguments_alone() -> None:
    state, batch = linear_state(Linear(tau=0.1)), linear_batch(0)
    before = pytree.map(torch.clone, state)
    update(state, batch)
    assert_trees_equal(state, before)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("guard", ["grads", "loss"])
def test_a_step_that_is_not_finite_moves_nothing_but_the_tick(poison: float, guard: str) -> None:
    state, batch = linear_state(Linear(tau=0.1), guard=guard), linear_batch(0)
    state, _ = update(state, batch)
    batch["x"][3, 1] = poison
    new, metrics = update(state, batch)
    assert metrics["skipped"] == 1
    assert int(new.tick) == 2
    assert_trees_equal(attrs.evolve(new, tick=state.tick), state)


def test_a_run_with_poisoned_batches_equals_one_that_skipped_them() -> None:
    poisoned = clean = linear_state()
    for index in range(20):
        batch = linear_batch(index)
        if index % 5 == 2:
            clean = attrs.evolve(clean, tick=clean.tick + 1)
            batch["y"][0, 0] = float("nan")
        else:
            clean, _ = update(clean, batch)
        poisoned, _ = update(poisoned, batch)
    assert_trees_equal(poisoned, clean)


def test_without_a_guard_the_poison_goes_through() -> None:
    state, batch = linear_state(guard="off"), linear_batch(0)
    batch["x"][0] = float("nan")
    new, metrics = update(state, batch)
    assert new.params["model"]["w"].isnan().any()
    assert metrics["skipped"] == 0
    assert "grad_norm" not in metrics


def test_accumulated_micro_batches_equal_one_big_batch() -> None:
    whole = linear_batch(0, n=12)
    parts = [{name: x[a:b] for name, x in whole.items()} for a, b in ((0, 5), (5, 6), (6, 12))]
    plain = linear_state()
    state = step.with_accumulator(plain, parts[0])
    for part in parts[:-1]:
        state, _ = step.accumulate(state.program.learner, state, part)
        assert_trees_equal(state.params, plain.params)
    state, metrics = update(state, parts[-1])
    expected, expected_metrics = update(plain, whole)
    torch.testing.assert_close(state.params, expected.params, rtol=0, atol=1e-14)
    torch.testing.assert_close(metrics["loss"], expected_metrics["loss"], rtol=0, atol=1e-14)
    assert int(state.step) == 1
    assert all(float(leaf.abs().sum()) == 0 for leaf in pytree.leaves(state.slots["accum"]["grads"]))


def test_accumulation_wants_one_phase() -> None:
    state = linear_state(TwoPhases())
    with pytest.raises(ValueError, match="for learners of one phase; this one has first, second"):
        step.with_accumulator(state, linear_batch(0))


@component
class TwoPhases(Linear):
    """The same loss twice, the second one every other step."""

    def phases(self) -> tuple[phases.Phase, ...]:
        (first,) = Linear.phases(self)
        return attrs.evolve(first, name="first"), attrs.evolve(first, name="second", every=2)


def test_later_phases_read_what_earlier_ones_moved_and_rest_on_other_steps() -> None:
    optimizer = SGD(lr=0.1)
    state, batch = linear_state(TwoPhases(optimizer=optimizer)), linear_batch(0)
    single = linear_state(Linear(optimizer=optimizer))
    for n_moves in (1, 2, 1, 2):
        state, metrics = update(state, batch)
        for _ in range(n_moves):
            single, _ = update(single, batch)
        torch.testing.assert_close(state.params, single.params, rtol=0, atol=1e-15)
    assert set(metrics) >= {"first/loss", "second/loss"}


def test_a_phase_that_rests_counts_its_own_updates() -> None:
    state, batches = linear_state(Linear(every=2)), [linear_batch(i) for i in range(10)]
    expected = torch_reference(state, batches[1::2])
    for batch in batches:
        state, _ = update(state, batch)
    torch.testing.assert_close(state.params["model"]["w"], expected["w"], rtol=0, atol=1e-13)


def test_a_track_follows_its_source() -> None:
    state = linear_state(Linear(tau=0.25))
    old = state.slots["ema"]["w"]
    new, _ = update(state, linear_batch(0))
    expected = 0.75 * old + 0.25 * new.params["model"]["w"]
    torch.testing.assert_close(new.slots["ema"]["w"], expected, rtol=0, atol=1e-15)


def test_swept_values_replace_the_components_own() -> None:
    swept = attrs.evolve(linear_state(), hyper={"optimizer.lr": torch.tensor(0.3, dtype=torch.float64)})
    plain = linear_state(Linear(optimizer=AdamW(lr=0.3)))
    a, _ = update(swept, linear_batch(0))
    b, _ = update(plain, linear_batch(0))
    assert_trees_equal(a.params, b.params)


@pytest.mark.parametrize(
    ("path", "message"),
    [("optimizer.rate", "AdamW has no field 'rate'"), ("every", "Linear.every is structural, not traceable")],
)
def test_only_traceable_fields_can_be_swept(path: str, message: str) -> None:
    with pytest.raises(KeyError, match=message):
        evolve_at(Linear(), path, torch.tensor(1.0))


def test_every_step_draws_afresh_from_the_key() -> None:
    @component
    class Noisy(Linear):
        def phases(self) -> tuple[phases.Phase, ...]:
            return (attrs.evolve(Linear.phases(self)[0], loss=noisy),)

    def noisy(params: Any, state: TrainState, batch: Any, key: Tensor) -> tuple[Tensor, phases.Aux]:
        loss, _ = squared_loss(params, state, batch, key)
        return loss, {"metrics": {"draw": torch.rand(())}}

    squared_loss = Linear().phases()[0].loss
    state, again = linear_state(Noisy()), linear_state(Noisy())
    draws = []
    for _ in range(3):
        state, metrics = update(state, linear_batch(0))
        draws.append(float(metrics["draw"]))
    again, metrics = update(again, linear_batch(0))
    assert len(set(draws)) == 3
    assert float(metrics["draw"]) == draws[0]
    assert random.key(7) == state.key


class Stirred(Doubled):
    """A gradient that draws."""

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:  # type: ignore[override]
        return slope * torch.rand(slope.shape, dtype=slope.dtype)


def test_draws_on_the_way_back_come_from_the_key() -> None:
    @component
    class Stirring(Linear):
        def phases(self) -> tuple[phases.Phase, ...]:
            (phase,) = Linear.phases(self)
            return (attrs.evolve(phase, loss=lambda p, *rest: phase.loss(pytree.map(Stirred.apply, p), *rest)),)

    state = linear_state(Stirring(optimizer=SGD(lr=1.0)))
    later = attrs.evolve(state, tick=state.tick + 1)
    first, again, other = (update(given, linear_batch(0))[0] for given in (state, state, later))
    assert_trees_equal(first, again)
    assert not torch.equal(first.params["model"]["w"], other.params["model"]["w"])
