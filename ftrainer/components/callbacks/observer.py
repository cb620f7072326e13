"""Schedules that watch a figure, as callbacks that set the learning rates' scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import attrs

from ftrainer.functional.events import Action, Scale
from registry.issue import invalid

from .monitor import reading


class Watching(Protocol):
    """A schedule that reads the host's figures, as `schedule.plateau` does."""

    monitor: str

    def init(self) -> Any:
        """What is remembered at step zero, as JSON data."""
        ...

    def observe(self, state: Any, metric: float) -> tuple[Any, float]:
        """What is remembered after one more reading, and the scale of every learning rate from now on."""
        ...


@attrs.frozen(kw_only=True)
class Observer:
    """Tells a schedule each reading of the figure that it watches, and the loop the scale that it answers with."""

    schedule: Any

    @property
    def monitor(self) -> str:
        """The figure."""
        return str(self.schedule.monitor)

    @property
    def mode(self) -> str | None:
        """Whether less or more is better, where the schedule has a preference."""
        return getattr(self.schedule, "mode", None)

    def init(self) -> Any:
        """The schedule's own memory."""
        return self.schedule.init()

    def on_event(self, memory: Any, event: Any) -> tuple[Any, tuple[Action, ...]]:
        """Pass a reading on.

        Raises:
            ConfigError: nothing of the monitored name is logged where it should be.
        """
        value = reading(self.monitor, event)
        if value is None:
            return memory, ()
        memory, scale = self.schedule.observe(memory, value)
        return memory, (Scale(lr=scale),)


def observers(learner: Any) -> tuple[Observer, ...]:
    """One for the schedule in a learner that watches a figure; none where none does.

    Raises:
        ConfigError: there are several.
    """
    found = list(dict.fromkeys(watching(learner)))
    if len(found) > 1:
        monitors = ", ".join(schedule.monitor for schedule in found)
        raise invalid("several schedules watch a figure, and one scale moves all learning rates", "scheduler",
                      found=monitors, hint="keep one of them")  # fmt: skip
    return tuple(Observer(schedule=schedule) for schedule in found)


def watching(node: Any) -> Iterator[Any]:
    """Every schedule that watches a figure, at any depth of a component."""
    if is_watching(node):
        yield node
    elif isinstance(node, Mapping):
        yield from (found for value in node.values() for found in watching(value))
    elif isinstance(node, tuple):
        yield from (found for value in node for found in watching(value))
    elif attrs.has(type(node)):
        yield from (found for field in attrs.fields(type(node)) for found in watching(getattr(node, field.name)))


def is_watching(node: Any) -> bool:
    """Whether a component is `Watching`: asked of everything in a learner whenever a run begins, so asked cheaply."""
    return hasattr(node, "observe") and hasattr(node, "monitor")
