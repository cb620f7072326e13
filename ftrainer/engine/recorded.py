"""A run's events on their way to the user, noted in the run's directory as they pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ftrainer.components.base import Data
from ftrainer.functional.events import Event, Stopping
from registry.spec import thaw

from .environment import environment
from .position import run_clock
from .resume import Beginning
from .status import Chronicle


def recorded(events: Iterator[Event], chronicle: Chronicle) -> Iterator[Event]:
    """The same events; the chronicle learns how far the run is and how it ends."""
    for event in events:
        chronicle.progress(event.step, event.elapsed)
        if isinstance(event, Stopping):
            chronicle.over(event.status, event.reason)
        yield event


def facts(begin: Beginning, data: Data, digest: str) -> dict[str, Any]:
    """What a run's directory says of the run from its beginning on, as JSON data.

    Args:
        begin: where it begins.
        data: what it trains on.
        digest: of its resolved configuration.
    """
    program, device = begin.state.program, begin.state.step.device
    return {
        "name": program.run.name,
        "digest": digest,
        "total_steps": program.trainer.total_steps(run_clock(program, data, begin.cursor).attempts_by),
        "members": [thaw(each.values) for each in program.members],
        "environment": {**environment(), "device": str(device), "backend": program.run.compile},
    }
