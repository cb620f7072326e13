"""Calls played from recordings: the plain function's results, a state that moves once a call, results that stay.

The machine's GPU is stood in for by functions that are called again on the tensors that they were recorded with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from ftrainer import build
from ftrainer.deps import inductor
from ftrainer.functional import pytree
from ftrainer.functional.graph.recording import IDLE, MOST, WARM_UP, Recorded, RecordingError, compact, on_host
from ftrainer.functional.jit import inputs_of, jit
from ftrainer.functional.replicate import stack, together
from registry import ConfigError

from .test_experiment import config
from .test_step import assert_trees_equal
from .toys import Linear, linear_batch, linear_state


class Tape:
    """A recorder without a GPU: a recording computes nothing, a replay overwrites the results of the one before."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def run(self, fn: Any, tensors: Sequence[Tensor]) -> Sequence[Any]:
        self.log.append("run")
        return fn(*tensors)

    def record(self, fn: Any, tensors: Sequence[Tensor]) -> tuple[Callable[[], None], Sequence[Any]]:
        self.log.append("record")
        before = [tensor.clone() for tensor in tensors]
        results = fn(*tensors)
        for tensor, old in zip(tensors, before, strict=True):
            if compact(tensor) is tensor:
                tensor.copy_(old)

        def replay() -> None:
            self.log.append("replay")
            for kept, new in zip(results, fn(*tensors), strict=True):
                kept.copy_(new)

        return replay, results


def move(state: Tensor, batch: Tensor) -> list[Tensor]:
    """A step in place: the state's sum with the batch, and two figures, one of them the state itself."""
    state += batch
    return [state.sum(), state]


def recorded(fn: Any, tensors: Sequence[Tensor], donated: Sequence[int] = (0,)) -> tuple[Recorded, Tape]:
    tape = Tape()
    return Recorded(fn, tensors, donated, tape, "move"), tape


def test_two_calls_run_plainly_and_the_third_is_recorded_and_played() -> None:
    state, plain = torch.zeros(3), torch.zeros(3)
    played, tape = recorded(move, (state, torch.zeros(3)))
    kept = []
    for index in range(5):
        batch = torch.full((3,), float(index))
        kept.append((played(state, batch)[0], move(plain, batch)[0]))
        assert torch.equal(state, plain)
    assert tape.log == ["run", "run", "record", "replay", "replay", "replay"]
    assert all(torch.equal(ours, theirs) for ours, theirs in kept)


def test_what_came_out_is_the_callers() -> None:
    state = torch.zeros(3)
    played, _ = recorded(move, (state, torch.zeros(3)))
    results = [played(state, torch.ones(3)) for _ in range(WARM_UP + 3)][WARM_UP:]
    assert [float(total) for total, _ in results] == [9.0, 12.0, 15.0]
    assert [whole.tolist() for _, whole in results] == [[3.0] * 3, [4.0] * 3, [5.0] * 3]
    assert float(state[0]) == 5


def test_batches_are_copied_and_stay_the_callers() -> None:
    state, batch = torch.zeros(3), torch.ones(3)
    played, _ = recorded(move, (state, batch))
    for _ in range(WARM_UP + 1):
        played(state, batch)
    assert all(place.data_ptr() != batch.data_ptr() for place in played.places.values())
    assert torch.equal(batch, torch.ones(3))


def test_other_donated_tensors_are_recorded_anew(caplog: pytest.LogCaptureFixture) -> None:
    states, batch = [torch.zeros(3), torch.zeros(3)], torch.ones(3)
    played, tape = recorded(move, (states[0], batch))
    with caplog.at_level(logging.INFO, "ftrainer.jit"):
        for _ in range(4):
            for state in states:
                played(state, batch)
    assert [float(state[0]) for state in states] == [4.0, 4.0]
    assert tape.log.count("record") == 2
    assert [record.getMessage() for record in caplog.records] == [
        "move met other donated tensors and is recorded anew (2)"
    ]


def test_recordings_are_bounded_and_idle_ones_make_room(caplog: pytest.LogCaptureFixture) -> None:
    states, batch = [torch.zeros(1) for _ in range(MOST + 1)], torch.ones(1)
    played, tape = recorded(move, (states[0], batch))
    for _ in range(WARM_UP):
        played(torch.zeros(1), batch)
    for state in (*states, states[-1]):
        played(state, batch)
    assert len(played.recordings) == MOST
    assert "64 recordings in use; calls with other donated tensors run plainly" in caplog.text
    assert float(states[-1]) == 2
    for _ in range(IDLE):
        played(states[0], batch)
    played(states[-1], batch)
    assert (len(played.recordings), tape.log.count("record")) == (MOST, MOST + 1)
    assert [float(state) for state in (states[0], states[1], states[-1])] == [1 + IDLE, 1, 3]


def test_expanded_arguments_are_copied_where_they_have_memory() -> None:
    state, batch = torch.zeros(2, 3), torch.tensor([1.0, 2.0, 3.0]).expand(2, 3)
    played, _ = recorded(move, (state, batch))
    for _ in range(WARM_UP + 2):
        played(state, batch)
    assert played.places[1].stride() == (0, 1)
    assert torch.equal(state, 4 * batch)


def test_what_cannot_be_recorded_is_an_error_and_moves_nothing() -> None:
    class Refusing(Tape):
        def record(self, fn: Any, tensors: Sequence[Tensor]) -> Any:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    state, batch = torch.zeros(3), torch.ones(3)
    played = Recorded(move, (state, batch), (0,), Refusing(), "move")
    for _ in range(WARM_UP):
        played(state, batch)
    with pytest.raises(RecordingError, match=r"move cannot be recorded .*\(operation not permitted.*run.compile: ind"):
        played(state, batch)
    assert float(state[0]) == WARM_UP


def test_an_argument_on_the_cpu_is_named(caplog: pytest.LogCaptureFixture) -> None:
    inputs = inputs_of(({"w": torch.zeros(3)}, {"x": torch.ones(3), "n": 3}), (0,))
    with caplog.at_level(logging.INFO, "ftrainer.jit"):
        assert on_host(inputs.tensors, inputs.paths, "step")
    assert "step runs without CUDA graphs, since 0/w, 1/x is on the CPU" in caplog.text
    assert inputs.donated == {0}


@pytest.mark.parametrize("fn", ["update", "replicated"])
def test_a_whole_step_goes_the_same_way(fn: str) -> None:
    learner = Linear(tau=0.1)
    step = learner.update if fn == "update" else together(learner.update)
    begin = linear_state(learner) if fn == "update" else stack([linear_state(learner), linear_state(learner)])
    tensors, compiled = jit(step, backend="trace", donate=(0,)).lookup(begin, linear_batch(0))
    inputs = inputs_of((begin, linear_batch(0)), (0,))
    states = [pytree.map(torch.clone, begin) for _ in range(2)]
    played, tape = recorded(compiled.run, tensors, inputs.donated)
    for index in range(6):
        batch = pytree.leaves(linear_batch(index))
        with torch.no_grad():
            ours = played(*pytree.leaves(states[0]), *batch)
            theirs = compiled.run(*pytree.leaves(states[1]), *batch)
        assert_trees_equal(list(ours), list(theirs))
    assert_trees_equal(*states)
    assert tape.log == ["run"] * WARM_UP + ["record"] + ["replay"] * 4


def test_a_step_on_the_cpu_refuses_cuda_graphs() -> None:
    with pytest.raises(ConfigError, match=r"cuda_graphs needs a GPU") as caught:
        build(config(), {"run.compile": "cuda_graphs", "run.device": "cpu"})
    assert [issue.path for issue in caught.value.issues] == [("run", "compile")]


@pytest.mark.skipif(inductor.why_not("cpu") is not None, reason="needs a C++ compiler")
def test_a_function_of_the_cpu_runs_without_graphs() -> None:
    double = jit(lambda x: 2 * x, backend="cuda_graphs")
    assert all(torch.equal(double(torch.ones(3)), torch.full((3,), 2.0)) for _ in range(WARM_UP + 2))


def test_the_error_stands_where_the_backend_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config(run={"name": "test", "device": "cpu", "compile": "cuda_graphs"})))
    with pytest.raises(ConfigError) as caught:
        build(path)
    (issue,) = caught.value.issues
    assert issue.where is not None
    assert issue.where.text.strip() == "compile: cuda_graphs"
