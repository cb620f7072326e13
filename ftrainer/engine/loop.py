"""The outer loop as a user calls it: to the end, or event by event."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor

from ftrainer.components.data.adapt import as_data
from ftrainer.deps import malloc
from ftrainer.functional import pytree
from ftrainer.functional.events import Event
from ftrainer.functional.graph.donation import apart_from_each_other
from ftrainer.functional.state import TrainState

from .accelerator import numerics
from .crew import data_of
from .resume import AUTO, Beginning, checkpoint_directories, locate, restore, why_finished
from .training import Training
from .trespass import keep_out

log = logging.getLogger("ftrainer.run")


def fit(state: TrainState, data: Any, *, donate: bool = False, resume: str | Path | None = None) -> TrainState:
    """Train to the end that the program's `trainer` names.

    Args:
        state: where to begin, from `build` or from an earlier `fit`. It stays valid unless it is donated.
        data: what `build` gave, a torch `DataLoader`, or a list of batches.
        donate: hand the state over: its tensors are overwritten, and memory for a second copy is saved.
        resume: a checkpoint to go on from, or `auto` for the newest where the program's callbacks save; `state` then
            says what it must look like.

    Returns:
        The state after the last step.

    Raises:
        ConfigError: there is no such checkpoint, it does not fit, or the order of the data cannot be had again; or
            `run.out_dir` holds a run of the command line that this one neither goes on with nor may write over.
    """
    source, asked = as_data(data), None if resume is None else str(resume)
    path = locate(asked, checkpoint_directories(state.program))
    if asked != AUTO:
        keep_out(state, path)
    begin = restore(state, source, path)
    state = begin.state
    if reason := why_finished(begin, source, asked):
        log.info("%s is finished: %s", state.program.run.name, reason)
        return state
    for event in told(begin, source, donate, is_followed=False):
        state = event.state
    return state


def iterate(
    begin: TrainState | Beginning,
    data: Any,
    *,
    donate: bool = False,
    interrupted: Callable[[], str | None] | None = None,
    rescue: str | None = None,
) -> Iterator[Event]:
    """The same as a generator of events; draining it is training.

    Args:
        begin: a state, or one with what surrounded it in its checkpoint.
        data, donate: as for `fit`.
        interrupted: asked between steps; a reason ends the run.
        rescue: where to save `last` when the run ends and no callback does.

    Yields:
        StepEnd, Logged, EpochEnd, Validated, Saved and, last, Stopping. An event lends its state: clone to keep.

    Raises:
        ConfigError: `run.out_dir` holds a run of the command line that this one neither goes on with nor may write
            over.
    """
    begin = begin if isinstance(begin, Beginning) else Beginning(state=begin)
    keep_out(begin.state, begin.origin)
    yield from told(begin, data, donate, interrupted, rescue)


def told(
    begin: Beginning,
    data: Any,
    donate: bool,
    interrupted: Callable[[], str | None] | None = None,
    rescue: str | None = None,
    is_followed: bool = True,
) -> Iterator[Event]:
    """The loop itself, for who may write into `run.out_dir`; where nobody follows it, most steps make no event."""
    own = apart_from_each_other(begin.state) if donate else pytree.map(clone, begin.state)
    begin = attrs.evolve(begin, state=own)
    source = data_of(begin.state.program, as_data(data))
    if begin.state.step.device.type == "cpu":
        malloc.keep_freed()
    run = begin.state.program.run
    with numerics(run.precision, run.deterministic):
        training = Training(begin, source, interrupted, rescue, is_followed)
        with training.journal, training.saver:
            yield from training.events()


def clone(leaf: Any) -> Any:
    """A tensor's copy; anything else as it is."""
    return leaf.clone() if isinstance(leaf, Tensor) else leaf
