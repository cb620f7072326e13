"""A run's events on their way to the user, noted in the run's directory as they pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ftrainer.components.base import Data
from ftrainer.functional.events import Event, Stopping
from ftrainer.functional.state import TrainState
from registry.spec import thaw

from .checkpoint import environment
from .start import total_steps
from .status import Chronicle


def recorded(events: Iterator[Event], chronicle: Chronicle) -> Iterator[Event]:
    """The same events; the chronicle learns how far the run is and how it ends."""
    for event in events:
        chronicle.progress(event.step, event.elapsed)
        if isinstance(event, Stopping):
            chronicle.over(event.status, event.reason)
        yield event


def facts(state: TrainState, data: Data, digest: str) -> dict[str, Any]:
    """What a run's directory says of the run from its beginning on, as JSON data.

    Args:
        state: where it begins.
        data: what it trains on.
        digest: of its resolved configuration.
    """
    program = state.program
    return {
        "name": program.run.name,
        "digest": digest,
        "total_steps": total_steps(program, data),
        "members": [thaw(each.values) for each in program.members],
        "environment": {**environment(), "device": str(state.step.device), "backend": program.run.compile},
    }
