"""When to save, under which name, and what to throw away for it."""

from __future__ import annotations

from typing import Any, Literal

import attrs
from attrs.validators import optional

from ftrainer.components import fields
from ftrainer.functional.events import Action, EpochEnd, Save, StepEnd, Stopping
from registry.issue import invalid
from registry.spec import component

from .monitor import better, reading, split_and_name

Memory = dict[str, Any]


def count_or_none(default: int | None) -> Any:
    """A field that holds a count from 1 up, or nothing."""
    return attrs.field(default=default, validator=optional(fields.count()))


@component
class ModelCheckpoint:
    """Save the run regularly, at its end, and when it is at its best (`cb.model_checkpoint`).

    Regular saves fall on every n-th step, on the first step after n minutes, or, when neither is given, on each
    epoch's end. By steps or minutes they are named `step-00000200`; the newest `keep` stay.

    Attributes:
        save_dir: the directory of the checkpoints.
        save_last: whether each regular save, and the run's end or interruption, also writes `last`.
        every_n_steps: optimizer-step attempts between regular saves.
        every_n_minutes: minutes of training between regular saves.
        keep: how many regular saves stay; null keeps all.
        save_top_k: how many of the best stay: `best-val-loss`, or `best-val-loss-00000200` where k > 1.
        monitor: the figure that best is judged by, `val/loss` or `eval/return`; without a split it is validation's.
        mode: whether less or more is better.
    """

    save_dir: str
    save_last: bool = True
    every_n_steps: int | None = count_or_none(None)
    every_n_minutes: float | None = attrs.field(default=None, validator=optional(fields.above(0)))
    keep: int | None = count_or_none(3)
    save_top_k: int = attrs.field(default=0, validator=fields.count(0))
    monitor: str | None = None
    mode: Literal["min", "max"] = attrs.field(default="min", validator=fields.one_of("min", "max"))

    def __attrs_post_init__(self) -> None:
        if self.save_top_k and self.monitor is None:
            raise invalid("needs a figure to judge by", "save_top_k", hint="set `monitor: val/loss`")
        if self.monitor is not None and not self.save_top_k:
            raise invalid("is never read", "monitor", found=repr(self.monitor), hint="set `save_top_k: 1`")
        if not (self.save_last or self.save_top_k or self._is_numbered):
            raise invalid("would never save anything", hint="set `save_last: true` or `every_n_steps`")

    def init(self) -> Memory:
        """Nothing saved yet: names of regular saves, the clock at the last one, `[figure, name]` of the best."""
        return {"regular": [], "clock": 0.0, "best": []}

    def on_event(self, memory: Memory, event: Any) -> tuple[Memory, tuple[Action, ...]]:
        """Ask for the saves that are due.

        Raises:
            ConfigError: nothing of the monitored name is logged where it should be.
        """
        if isinstance(event, Stopping):
            return memory, self._last()
        if self._is_due(memory, event):
            return self._save_regular(memory, event)
        value = None if self.monitor is None else reading(self.monitor, event)
        return (memory, ()) if value is None else self._save_best(memory, event, value)

    @property
    def _is_numbered(self) -> bool:
        return self.every_n_steps is not None or self.every_n_minutes is not None

    def _is_due(self, memory: Memory, event: Any) -> bool:
        if not self._is_numbered:
            return isinstance(event, EpochEnd)
        if not isinstance(event, StepEnd):
            return False
        by_step = self.every_n_steps is not None and event.step % self.every_n_steps == 0
        by_time = self.every_n_minutes is not None and event.elapsed - memory["clock"] >= 60 * self.every_n_minutes
        return by_step or by_time

    def _last(self) -> tuple[Action, ...]:
        return (Save(directory=self.save_dir, name="last"),) if self.save_last else ()

    def _save_regular(self, memory: Memory, event: Any) -> tuple[Memory, tuple[Action, ...]]:
        if not self._is_numbered:
            return memory, self._last()
        name = f"step-{event.step:08d}"
        kept, dropped = newest([*memory["regular"], name], self.keep)
        memory = {**memory, "regular": kept, "clock": event.elapsed}
        return memory, (Save(directory=self.save_dir, name=name, drop=dropped), *self._last())

    def _save_best(self, memory: Memory, event: Any, value: float) -> tuple[Memory, tuple[Action, ...]]:
        best = memory["best"]
        worst_kept = best[-1][0] if len(best) == self.save_top_k else None
        if not better(self.mode, value, worst_kept):
            return memory, ()
        stem = "-".join(("best", *split_and_name(str(self.monitor)))).replace("/", "-")
        name = stem if self.save_top_k == 1 else f"{stem}-{event.step:08d}"
        ranked = sorted([*best, [value, name]], key=lambda entry: entry[0], reverse=self.mode == "max")
        kept, gone = ranked[: self.save_top_k], ranked[self.save_top_k :]
        dropped = tuple(entry[1] for entry in gone if entry[1] != name)
        return {**memory, "best": kept}, (Save(directory=self.save_dir, name=name, drop=dropped),)


def newest(names: list[str], keep: int | None) -> tuple[list[str], tuple[str, ...]]:
    """The last `keep` names, and those before them.

    >>> newest(["a", "b", "c"], 2)
    (['b', 'c'], ('a',))
    """
    at = 0 if keep is None else max(0, len(names) - keep)
    return names[at:], tuple(names[:at])
