"""The kinds of component, as protocols: what a plugin author implements and what the core calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import attrs
from torch import Tensor, nn

from ftrainer.functional.phases import Context, Transform
from ftrainer.functional.state import TrainState, Tree

Batch = Any
"""A pytree of tensors, examples along the leading dimension; `sample_mask` (B,) bool, where present, marks padding."""

__all__ = [
    "IO",
    "Batch",
    "Callback",
    "Context",
    "Data",
    "DataSpec",
    "Evaluator",
    "Learner",
    "LogSink",
    "Logger",
    "Loss",
    "Metric",
    "Model",
    "RunInfo",
    "Schedule",
    "Transform",
]


class Model(Protocol):
    """Architecture as pure functions."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the model's inputs."""
        ...

    def init(
        self, key: Tensor, example: Mapping[str, Any], statistics: Mapping[str, Any] | None = None
    ) -> tuple[Tree, Tree]:
        """Parameters and buffers, `{dotted name: tensor}` each, from `key`; `example` is a batch's model inputs."""
        ...

    def to_module(self, params: Tree, buffers: Tree) -> nn.Module:
        """An ordinary module with copies of these tensors."""
        ...

    def apply(
        self, params: Tree, buffers: Tree, inputs: Mapping[str, Any], key: Tensor | None = None, train: bool = False
    ) -> tuple[Any, Tree]:
        """Outputs and new buffers; the arguments are unchanged."""
        ...


class Schedule(Protocol):
    """A learning-rate schedule: the optimizer's own `lr` times a factor of the step or epoch tensor."""

    def adjust(self, transform: Transform, ctx: Context) -> Transform:
        """`transform` with its scheduled fields replaced by 0-d tensors."""
        ...


class Loss(Protocol):
    """From outputs and targets to a scalar."""

    def __call__(self, outputs: Any, targets: Mapping[str, Any], mask: Tensor | None = None) -> Tensor: ...


class IO(Protocol):
    """Which parts of a batch feed the model and which are targets."""

    def inputs(self, batch: Batch) -> dict[str, Any]: ...

    def targets(self, batch: Batch) -> dict[str, Any]: ...


class Learner(Protocol):
    """An algorithm. `fit` sees `init`, `update` and `evaluate`; what comes after uses what else it may have.

    That is `predict(state, inputs)`, the outputs in evaluation mode; `to_module(state)`, a plain module with everything
    inside that evaluation needs; and `inputs(batch)`, what that module takes, by name, out of a batch. One that has a
    method `check(state, batch)` is asked before training; it raises what would keep it from learning, for which
    `ftrainer.api` has `try_phases` and `try_metrics`.
    """

    def init(self, key: Tensor, example_batch: Batch, statistics: Mapping[str, Any]) -> TrainState: ...

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Tensor]]: ...

    def evaluate(self, state: TrainState, batch: Batch) -> dict[str, Any]: ...


class Data(Protocol):
    """Batches as a pure function of (seed, epoch, index)."""

    @property
    def exact_resume(self) -> str | None:
        """None where order and contents are reproducible, else the reason why resume must be refused."""
        ...

    def n_batches(self, split: str) -> int:
        """Batches in one epoch of `train` or `val`; 0 where the split is empty."""
        ...

    def batches(self, split: str, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from index `start` on."""
        ...

    def statistics(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Per field of a batch, `mean` and `std` (population) of the training split over its examples, float64."""
        ...


class DataSpec(Protocol):
    """What `data:` names: frozen, cheap, without contents."""

    def open(self, *, seed: int, device: Any) -> Data:
        """Load or make the contents (they depend on the spec alone) and fix the order (it depends on `seed`)."""
        ...


class Metric(Protocol):
    """A figure over a whole split."""

    name: str

    def compute(self, outputs: Any, targets: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Figures from the split's concatenated outputs and targets."""
        ...


class Evaluator(Protocol):
    """What must touch the world to judge a state: a simulator, say.

    One that has a method `check(state)` is asked before training; it raises what would keep it from judging.
    """

    def evaluate(self, state: TrainState) -> Mapping[str, float]: ...


@runtime_checkable
class Callback(Protocol):
    """A pure reaction to events; what it remembers travels in the checkpoint, so `cb_state` is JSON data."""

    def init(self) -> Any: ...

    def on_event(self, cb_state: Any, event: Any) -> tuple[Any, tuple[Any, ...]]: ...


@attrs.frozen(kw_only=True)
class RunInfo:
    """What a logger may know of the run when it opens.

    Attributes:
        name, out_dir: the run's.
        total_steps: optimizer-step attempts in all.
        start_step: those that were over before, where the run is resumed.
        config: the resolved configuration.
        members: what sets each member of a stack of runs apart, by config path; empty for a plain run.
        layout: how members share calls, and what decided it.
    """

    name: str
    out_dir: Path
    total_steps: int | None = None
    start_step: int = 0
    config: Mapping[str, Any] = attrs.field(factory=dict)
    members: tuple[Mapping[str, Any], ...] = ()
    layout: Mapping[str, Any] = attrs.field(factory=dict)


class LogSink(Protocol):
    """An open logger."""

    def write(self, row: Mapping[str, Any]) -> None:
        """One row: `{"step", "epoch", "split": "train|val|eval", "member"?, "metrics": {name: float}}`."""
        ...

    def close(self) -> None: ...


class Logger(Protocol):
    """Where rows go. The spec is frozen; `open` gives what touches the world.

    One that sets `per_member = False` on its class gets one row with the members' means where others get one for each.
    One that sets `writes = False` leaves no file; of any other it is taken that it writes to its `path`, if it has one,
    below the run's directory.
    """

    def open(self, info: RunInfo) -> LogSink: ...
