"""Mixed precisions: casts around the losses, and a loss scale that finds its height."""

from __future__ import annotations

import os
from typing import Any

import attrs
import pytest
import torch

from ftrainer import build, evaluate, fit
from ftrainer.engine.accelerator import numerics
from ftrainer.functional import pytree
from ftrainer.functional.jit import jit
from ftrainer.functional.scaling import GROWTH_EVERY, INITIAL, MINIMUM, with_loss_scale
from tests.test_experiment import config
from tests.test_step import assert_trees_equal, update
from tests.toys import linear_batch, linear_state

SCALE = 64.0


def half_state(**slot: float) -> Any:
    """A linear model whose loss scale has found its height, or stands where the test wants it."""
    state = with_loss_scale(linear_state(dtype=torch.float32, precision="fp16-mixed"))
    assert float(state.slots["loss_scale"]["scale"]) == INITIAL
    found = {"scale": torch.tensor(slot.get("scale", SCALE)), "good": torch.tensor(int(slot.get("good", 0)))}
    return attrs.evolve(state, slots={**state.slots, "loss_scale": found})


def half_batch(index: int, factor: float = 1.0) -> Any:
    return pytree.map(lambda x: factor * x, linear_batch(index, dtype=torch.float32))


def test_bf16_trains_near_float32_and_keeps_float32_weights() -> None:
    full, data = build(config(), {"trainer.max_epochs": 20})
    mixed, _ = build(config(), {"trainer.max_epochs": 20, "run.precision": "bf16-mixed"})
    a, b = fit(full, data), fit(mixed, data)
    assert {leaf.dtype for leaf in pytree.leaves(b.params)} == {torch.float32}
    assert not torch.equal(a.params["model"]["0.0.weight"], b.params["model"]["0.0.weight"])
    assert evaluate(b, data)["loss"] == pytest.approx(evaluate(a, data)["loss"], rel=0.1)


def test_scaling_the_loss_changes_no_gradient_that_fits() -> None:
    scaled = half_state()
    plain = attrs.evolve(scaled, slots={k: v for k, v in scaled.slots.items() if k != "loss_scale"})
    for index in range(5):
        scaled, a = update(scaled, half_batch(index))
        plain, b = update(plain, half_batch(index))
    torch.testing.assert_close(scaled.params, plain.params, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(a["loss"], b["loss"], rtol=1e-2, atol=1e-3)
    assert int(scaled.slots["loss_scale"]["good"]) == 5


def test_an_overflow_halves_the_scale_moves_nothing_and_is_not_bad() -> None:
    state = half_state()
    new, metrics = update(state, half_batch(0, factor=1000.0))
    assert metrics["skipped"] == 0
    assert float(new.slots["loss_scale"]["scale"]) == SCALE / 2
    assert_trees_equal(new.params, state.params)
    assert int(new.step) == 0


def test_at_its_minimum_an_overflow_is_a_bad_step() -> None:
    new, metrics = update(half_state(scale=MINIMUM), half_batch(0, factor=float("inf")))
    assert metrics["skipped"] == 1
    assert float(new.slots["loss_scale"]["scale"]) == MINIMUM


def test_good_steps_in_a_row_double_the_scale() -> None:
    new, _ = update(half_state(good=GROWTH_EVERY - 1), half_batch(0))
    assert float(new.slots["loss_scale"]["scale"]) == 2 * SCALE
    assert int(new.slots["loss_scale"]["good"]) == 0


def test_the_scaled_step_traces() -> None:
    state = half_state()
    expected, _ = update(state, half_batch(0))
    traced, _ = jit(update, backend="trace")(state, half_batch(0))
    assert_trees_equal(traced, expected)


def test_convolutions_are_as_exact_as_products_and_the_switches_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    for precision, rounds in (("tf32", True), ("fp32", False), ("bf16-mixed", False)):
        with numerics(precision, deterministic=precision == "fp32"):
            assert torch.backends.cudnn.allow_tf32 is rounds
            assert (torch.get_float32_matmul_precision() == "high") is rounds
            assert torch.are_deterministic_algorithms_enabled() is (precision == "fp32")
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
