"""Stop when a figure no longer improves."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from ftrainer.components import fields
from ftrainer.functional.events import Action, Stop
from registry.spec import component

from .monitor import better, reading

Memory = dict[str, Any]


@component
class EarlyStopping:
    """End the run once `patience` readings in a row brought no improvement (`cb.early_stopping`).

    Attributes:
        monitor: a logged figure, `val/loss` or `eval/return`; without a split it is validation's.
        patience: readings without improvement that are too many.
        mode: whether less or more is better.
        min_delta: an improvement must be greater than this, in the figure's unit.
    """

    monitor: str
    patience: int = attrs.field(default=3, validator=fields.count())
    mode: Literal["min", "max"] = attrs.field(default="min", validator=fields.one_of("min", "max"))
    min_delta: float = attrs.field(default=0.0, validator=fields.at_least(0))

    def init(self) -> Memory:
        """No reading yet."""
        return {"best": None, "bad": 0}

    def on_event(self, memory: Memory, event: Any) -> tuple[Memory, tuple[Action, ...]]:
        """Count readings that do not improve on the best.

        Raises:
            ConfigError: nothing of the monitored name is logged where it should be.
        """
        value = reading(self.monitor, event)
        if value is None:
            return memory, ()
        if better(self.mode, value, memory["best"], self.min_delta):
            return {"best": value, "bad": 0}, ()
        memory = {**memory, "bad": memory["bad"] + 1}
        return memory, (Stop(reason=self._reason(memory)),) if memory["bad"] >= self.patience else ()

    def _reason(self, memory: Memory) -> str:
        best = "never was finite" if memory["best"] is None else f"has not improved on {memory['best']:.6g}"
        return f"early stopping: {self.monitor} {best} in {memory['bad']} readings"
