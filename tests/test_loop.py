"""The loop, followed event by event or left alone: the same state and the same rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from ftrainer import build, fit, iterate
from ftrainer.functional.events import EpochEnd, Logged, StepEnd, Validated
from tests.test_step import assert_trees_equal

TRAINERS: tuple[dict[str, Any], ...] = (
    {"max_steps": 23, "log_every_n_steps": 4},
    {"max_steps": 23, "log_every_n_steps": 5, "val_every_n_steps": 3, "grad_accum_steps": 2},
    {"max_epochs": 3, "log_every_n_steps": 100, "val_every_n_epochs": None},
)


def configuration(trainer: dict[str, Any], out_dir: Path) -> dict[str, Any]:
    return {
        "run": {"name": "loop", "out_dir": str(out_dir), "compile": "trace"},
        "model": {"sequential": {"layers": [{"_type_": "mlp", "dims": [None, 4, 2], "dropout": 0.1}]}},
        "data": {"_type_": "data.random_regression", "batch_size": 4, "steps_per_epoch": 5, "val_steps_per_epoch": 2,
                 "x_shape": [3], "y_shape": [2]},
        "io": {"_type_": "io.mapping", "model_kwargs": {"x": ["x"]}, "targets": {"y": ["y"]}},
        "loss": {"_type_": "loss.torch", "fn": {"_type_": "nn.MSELoss"}},
        "optimizer": {"_type_": "optim.adamw", "lr": 0.01},
        "trainer": {"_type_": "trainer.default", **trainer},
        "loggers": [{"_type_": "log.jsonl"}],
    }  # fmt: skip


def rows(out_dir: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "time"} for row in found]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_run_that_nobody_follows_is_the_run_that_somebody_does(tmp_path: Path, trainer: dict[str, Any]) -> None:
    left_alone = fit(*build(configuration(trainer, tmp_path / "alone")))
    state, data = build(configuration(trainer, tmp_path / "followed"))
    events = list(iterate(state, data))
    assert_trees_equal(*(attrs.evolve(end, program=None) for end in (left_alone, events[-1].state)))
    assert rows(tmp_path / "alone") == rows(tmp_path / "followed")
    assert [event.step for event in events if isinstance(event, StepEnd)] == list(range(1, events[-1].step + 1))
    assert {EpochEnd, Logged, Validated} <= {type(event) for event in events}


def test_a_state_that_is_handed_over_may_hold_a_tensor_twice(tmp_path: Path) -> None:
    given = configuration({"max_steps": 3}, tmp_path) | {"learner": {"_type_": "learner.supervised", "ema_decay": 0.9}}
    state, data = build(given)
    expected = fit(state, data)
    state = attrs.evolve(state, slots={**state.slots, "ema": state.params["model"]})
    assert_trees_equal(*(attrs.evolve(end, program=None) for end in (expected, fit(state, data, donate=True))))
