"""How long a program's step takes, by backend: what `ftrainer bench` prints."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence

import attrs
import torch
from rich.table import Table

from ftrainer.components.base import Batch, Data
from ftrainer.functional import pytree
from ftrainer.functional.graph.capture import TraceError
from ftrainer.functional.graph.recording import WARM_UP, RecordingError
from ftrainer.functional.state import TrainState

from .accelerator import to_device
from .stepper import Stepper, update

N_BATCHES = 8
"""Batches that are kept and trained on in turn, so that the step is timed and not the data."""


@attrs.frozen(kw_only=True)
class Timing:
    """One backend's figures.

    Attributes:
        backend: as in `run.compile`.
        first: seconds of the first step, tracing and compiling included.
        steps: seconds of one step, the mean of each round.
        problem: why there are no figures.
    """

    backend: str
    first: float = 0.0
    steps: tuple[float, ...] = ()
    problem: str | None = None

    @property
    def median(self) -> float:
        """Seconds of one step."""
        return statistics.median(self.steps)


def backends_of(device: torch.device) -> tuple[str, ...]:
    """Every way to execute a step on a device.

    >>> backends_of(torch.device("cpu"))
    ('eager', 'trace', 'inductor')
    """
    return ("eager", "trace", "inductor", *(("cuda_graphs",) if device.type == "cuda" else ()))


def time_backends(state: TrainState, data: Data, backends: Sequence[str], n_steps: int, rounds: int) -> list[Timing]:
    """Time a step by each backend, in turn within each round, so that the machine's moods strike all alike.

    Args:
        state: where every contestant begins; it stays valid.
        data: the first few batches are used.
        n_steps: steps in each round.
        rounds: how often each backend has its turn.
    """
    device, precision = state.step.device, state.program.policy.precision
    batches = [to_device(b, device, precision) for b in itertools.islice(data.batches("train", 0), N_BATCHES)]
    started = [start(state, backend, batches[0]) for backend in backends]
    for stepper, _ in started:
        if isinstance(stepper, Stepper):
            one_round(stepper, batches, n_steps)
    seconds: dict[int, list[float]] = {index: [] for index in range(len(started))}
    for _, (index, (stepper, _)) in itertools.product(range(rounds), enumerate(started)):
        if isinstance(stepper, Stepper):
            seconds[index].append(one_round(stepper, batches, n_steps))
    return [
        Timing(backend=backend, first=first, steps=tuple(seconds[index]))
        if isinstance(stepper, Stepper)
        else Timing(backend=backend, problem=stepper)
        for index, (backend, (stepper, first)) in enumerate(zip(backends, started, strict=True))
    ]


def start(state: TrainState, backend: str, batch: Batch) -> tuple[Stepper | str, float]:
    """A stepper that has made its first step, and others until nothing is new; how long the first took.

    Why there is none, where the step cannot be captured or recorded.
    """
    stepper = Stepper(pytree.map(torch.clone, state), backend)
    began = time.perf_counter()
    try:
        stepper(update, batch)
        wait(stepper.device)
        first = time.perf_counter() - began
        for _ in range(WARM_UP):
            stepper(update, batch)
    except (TraceError, RecordingError) as error:
        return str(error).splitlines()[0], 0.0
    return stepper, first


def one_round(stepper: Stepper, batches: Sequence[Batch], n_steps: int) -> float:
    """Seconds of one step, the mean of `n_steps`."""
    began = time.perf_counter()
    for batch in itertools.islice(itertools.cycle(batches), n_steps):
        stepper(update, batch)
    wait(stepper.device)
    return (time.perf_counter() - began) / n_steps


def time_data(data: Data, n_batches: int) -> float:
    """Seconds to fetch one training batch, the mean of up to `n_batches` of an epoch."""
    began = time.perf_counter()
    n = sum(1 for _ in itertools.islice(data.batches("train", 0), n_batches))
    return (time.perf_counter() - began) / n


def as_table(timings: Sequence[Timing], data_seconds: float) -> Table:
    """The figures as people read them: medians over the rounds with their range, ratios to the first contestant."""
    table = Table("backend", "first step", "step", "range", "times as fast", title="one step")
    reference = next((t for t in timings if t.problem is None), None)
    for timing in timings:
        if timing.problem is not None or reference is None:
            table.add_row(timing.backend, timing.problem)
            continue
        ratios = [a / b for a, b in zip(reference.steps, timing.steps, strict=True)]
        low, high = min(timing.steps) * 1e6, max(timing.steps) * 1e6
        table.add_row(timing.backend, f"{timing.first:.2f} s", f"{timing.median * 1e6:.0f} µs",
                      f"{low:.0f} – {high:.0f} µs", f"{statistics.median(ratios):.2f}")  # fmt: skip
    table.add_row("data", "", f"{data_seconds * 1e6:.0f} µs", "for one batch")
    return table


def wait(device: torch.device) -> None:
    """Let the device finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
