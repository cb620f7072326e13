"""Callbacks: when they save, what they throw away, when they stop; all of it from events alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftrainer.components.callbacks.early_stopping import EarlyStopping
from ftrainer.components.callbacks.model_checkpoint import ModelCheckpoint
from ftrainer.functional.events import Action, EpochEnd, Event, Logged, Save, StepEnd, Stop, Stopping, Validated
from registry import ConfigError
from tests.saved_states import small_state

STATE = small_state()


def step_end(step: int, elapsed: float = 0.0) -> StepEnd:
    return StepEnd(step=step, epoch=0, state=STATE, elapsed=elapsed, metrics={})


def epoch_end(step: int) -> EpochEnd:
    return EpochEnd(step=step, epoch=1, state=STATE)


def judged(step: int, split: str = "val", **metrics: float) -> Validated:
    return Validated(step=step, epoch=0, state=STATE, split=split, metrics=metrics)


def stopping(step: int) -> Stopping:
    return Stopping(step=step, epoch=0, state=STATE, reason="finished")


def tell(callback: Any, events: Iterable[Event], memory: Any = None) -> tuple[Any, list[Action]]:
    """Tell a callback of events; what it remembers passes through JSON each time, as a checkpoint would have it."""
    memory, actions = callback.init() if memory is None else memory, []
    for event in events:
        memory, wanted = callback.on_event(json.loads(json.dumps(memory, allow_nan=False)), event)
        actions += wanted
    return memory, actions


def names(actions: Iterable[Action]) -> list[str]:
    return [action.name for action in actions if isinstance(action, Save)]


def left_after(actions: Iterable[Action]) -> list[str]:
    """The checkpoints that lie in the directory in the end."""
    found: dict[str, None] = {}
    for action in actions:
        assert isinstance(action, Save)
        found[action.name] = None
        for name in action.drop:
            del found[name]
    return sorted(found)


def test_by_steps_the_newest_stay_and_last_is_rewritten() -> None:
    callback = ModelCheckpoint(save_dir="c", every_n_steps=2, keep=2)
    _, actions = tell(callback, [*map(step_end, range(1, 8)), stopping(7)])
    assert names(actions) == ["step-00000002", "last", "step-00000004", "last", "step-00000006", "last", "last"]
    assert left_after(actions) == ["last", "step-00000004", "step-00000006"]
    assert {action.directory for action in actions} == {"c"}


def test_without_last_only_numbered_saves_are_written() -> None:
    callback = ModelCheckpoint(save_dir="c", every_n_steps=3, keep=None, save_last=False)
    _, actions = tell(callback, [*map(step_end, range(1, 10)), stopping(9)])
    assert left_after(actions) == names(actions) == ["step-00000003", "step-00000006", "step-00000009"]


def test_by_minutes_the_runs_own_clock_decides() -> None:
    callback = ModelCheckpoint(save_dir="c", every_n_minutes=1, save_last=False)
    times = [10, 59, 61, 90, 120, 122, 200]
    _, actions = tell(callback, [step_end(step, elapsed) for step, elapsed in enumerate(times)])
    assert names(actions) == ["step-00000002", "step-00000005", "step-00000006"]


def test_with_no_interval_each_epochs_end_rewrites_last() -> None:
    callback = ModelCheckpoint(save_dir="c")
    _, actions = tell(callback, [step_end(1), epoch_end(1), step_end(2), epoch_end(2), stopping(2)])
    assert names(actions) == ["last", "last", "last"]


def test_the_best_replaces_the_best() -> None:
    callback = ModelCheckpoint(save_dir="c", save_last=False, save_top_k=1, monitor="loss")
    _, actions = tell(callback, [judged(step, loss=loss) for step, loss in enumerate([0.5, 0.7, 0.4, 0.4, math.nan])])
    assert actions == [Save(directory="c", name="best-val-loss")] * 2


def test_the_best_may_be_the_most_and_come_from_any_split() -> None:
    callback = ModelCheckpoint(save_dir="c", save_last=False, save_top_k=1, monitor="eval/return", mode="max")
    events = [judged(1, "eval", **{"return": 1.0}), judged(1, loss=9.0), judged(2, "eval", **{"return": 2.0})]
    assert names(tell(callback, events)[1]) == ["best-eval-return"] * 2
    callback = ModelCheckpoint(save_dir="c", save_last=False, save_top_k=1, monitor="train/loss")
    logged = [Logged(step=step, epoch=0, state=STATE, metrics={"loss": -step}) for step in range(3)]
    assert names(tell(callback, logged)[1]) == ["best-train-loss"] * 3


@given(
    figures=st.lists(st.floats(width=16), max_size=30),
    k=st.integers(1, 4),
    mode=st.sampled_from(["min", "max"]),
    cut=st.integers(0, 30),
)
def test_the_best_k_stay_also_across_a_resume(figures: list[float], k: int, mode: Any, cut: int) -> None:
    callback = ModelCheckpoint(save_dir="c", save_last=False, save_top_k=k, monitor="val/loss", mode=mode)
    events = [judged(step, loss=figure) for step, figure in enumerate(figures)]
    memory, before = tell(callback, events[:cut])
    _, after = tell(callback, events[cut:], memory)
    finite = [
        (figure if mode == "min" else -figure, step) for step, figure in enumerate(figures) if math.isfinite(figure)
    ]
    best = [f"best-val-loss-{step:08d}" if k > 1 else "best-val-loss" for _, step in sorted(finite)[:k]]
    assert left_after([*before, *after]) == sorted(best)


def test_early_stopping_counts_readings_without_improvement() -> None:
    callback = EarlyStopping(monitor="val/loss", patience=2, min_delta=0.1)
    memory, actions = tell(callback, [judged(step, loss=loss) for step, loss in enumerate([1.0, 0.95, 0.8, 0.75])])
    assert (memory, actions) == ({"best": 0.8, "bad": 1}, [])
    _, actions = tell(callback, [judged(9, "eval", loss=0.0), judged(9, loss=math.nan)], memory)
    assert actions == [Stop(reason="early stopping: val/loss has not improved on 0.8 in 2 readings")]


def test_early_stopping_may_want_more_and_copes_with_nothing_finite() -> None:
    callback = EarlyStopping(monitor="eval/return", patience=1, mode="max")
    assert tell(callback, [judged(1, "eval", **{"return": 1.0}), judged(2, "eval", **{"return": 2.0})])[1] == []
    _, actions = tell(callback, [judged(1, "eval", **{"return": math.nan})])
    assert actions == [Stop(reason="early stopping: eval/return never was finite in 1 readings")]


def test_callbacks_leave_what_they_are_given_alone() -> None:
    for callback in (
        ModelCheckpoint(save_dir="c", every_n_steps=1, save_top_k=2, monitor="loss"),
        EarlyStopping(monitor="loss"),
    ):
        memory = callback.init()
        before = json.dumps(memory)
        for event in (step_end(1), judged(1, loss=0.5), stopping(1)):
            callback.on_event(memory, event)
            assert json.dumps(memory) == before


def test_a_figure_that_is_not_logged_is_named_with_its_neighbours() -> None:
    callback = EarlyStopping(monitor="val/los")
    with pytest.raises(
        ConfigError, match=r"monitor: no such figure is logged; found 'val/los'.*did you mean 'val/loss'"
    ):
        callback.on_event(callback.init(), judged(1, loss=0.5, error=0.1))


def test_several_evaluators_report_one_by_one() -> None:
    callback = EarlyStopping(monitor="eval/sim/return", patience=1, mode="max")
    events = [judged(1, "eval", **{"other/return": 5.0}), judged(1, "eval", **{"sim/return": 1.0})]
    assert tell(callback, events) == ({"best": 1.0, "bad": 0}, [])
    with pytest.raises(ConfigError, match="no such figure is logged"):
        tell(callback, [judged(1, "eval", **{"sim/length": 1.0})])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"every_n_steps": 0}, "every_n_steps: out of range; found 0"),
        ({"every_n_minutes": 0}, "every_n_minutes: out of range; found 0"),
        ({"keep": 0}, "keep: out of range; found 0"),
        ({"save_top_k": -1}, "save_top_k: out of range; found -1"),
        ({"mode": "least"}, "mode: unknown choice; found 'least'"),
        ({"save_top_k": 1}, "save_top_k: needs a figure to judge by .*monitor: val/loss"),
        ({"monitor": "loss"}, "monitor: is never read; found 'loss' .*save_top_k: 1"),
        ({"save_last": False}, "would never save anything"),
    ],
)
def test_a_model_checkpoint_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelCheckpoint(save_dir="c", **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patience": 0}, "patience: out of range; found 0"),
        ({"min_delta": -0.1}, "min_delta: out of range; found -0.1"),
        ({"mode": "most"}, "mode: unknown choice; found 'most'"),
    ],
)
def test_an_early_stopping_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EarlyStopping(monitor="val/loss", **fields)
