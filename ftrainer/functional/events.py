"""What the loop says happened, and what a callback may ask of it: data, both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from .state import TrainState


@attrs.frozen(kw_only=True)
class Event:
    """One moment of the loop. It lends its state: clone what you keep.

    Attributes:
        step: optimizer-step attempts so far, skipped ones included.
        epoch: epochs finished so far.
        state: the run at this moment.
        elapsed: seconds of training so far, those before a resume included; the only clock a pure callback may read.
        member: whose figures these are, where the state is a stack of runs; None for what concerns the whole run.
    """

    step: int
    epoch: int
    state: TrainState
    elapsed: float = 0.0
    member: int | None = None


@attrs.frozen(kw_only=True)
class StepEnd(Event):
    """An optimizer step was attempted. `metrics` are 0-d tensors still on the device."""

    metrics: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class EpochEnd(Event):
    """The training split was seen once more."""


@attrs.frozen(kw_only=True)
class Logged(Event):
    """The loop fetched the training metrics from the device for the loggers; `metrics` are floats."""

    metrics: Mapping[str, float]
    split: str = "train"


@attrs.frozen(kw_only=True)
class Validated(Event):
    """Validation (`split` val) or an evaluator (`split` eval) ended; `metrics` are floats."""

    split: str
    metrics: Mapping[str, float]


@attrs.frozen(kw_only=True)
class Saved(Event):
    """A checkpoint is on disk."""

    path: Path


@attrs.frozen(kw_only=True)
class Stopping(Event):
    """The loop is about to end, and why.

    Attributes:
        reason: in words.
        status: `finished`, all steps done or a callback content; `stopped`, from outside; `failed`, too many bad steps
            of all that is trained, or an end that could not be saved, which callbacks cannot know yet.
    """

    reason: str
    status: str = "finished"


@attrs.frozen(kw_only=True)
class Save:
    """Write a checkpoint named `name` under `directory`; once it stands, remove those named by `drop`.

    A callback drops what it asked for itself, so that two of them may share a directory.
    """

    directory: str
    name: str
    drop: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Stop:
    """End the run after this event."""

    reason: str


@attrs.frozen(kw_only=True)
class Log:
    """Write a row of metrics."""

    split: str
    metrics: Mapping[str, float]


@attrs.frozen(kw_only=True)
class Validate:
    """Run validation and the evaluators now."""


@attrs.frozen(kw_only=True)
class Scale:
    """Multiply every learning rate by `lr` from the next step on, in place of what an earlier `Scale` said."""

    lr: float


Action = Save | Stop | Log | Validate | Scale
