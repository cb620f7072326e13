"""Rows as plain lines on the terminal."""

from __future__ import annotations

from typing import ClassVar

import attrs

from ftrainer.components import fields
from ftrainer.components.base import LogSink, RunInfo
from registry.spec import component

from .rows import Row, figures_text, place_text


@component
class Stdout:
    """One line of text for each row (`log.stdout`).

    Attributes:
        every_n_steps: training rows are shown once in so many steps; validation and evaluation always.
    """

    per_member: ClassVar[bool] = False
    writes: ClassVar[bool] = False

    every_n_steps: int = attrs.field(default=1, validator=fields.count())

    def open(self, info: RunInfo) -> LogSink:
        """Nothing to open."""
        return StdoutSink(self.every_n_steps, info)


class StdoutSink:
    """Prints rows and remembers the last step that it showed."""

    def __init__(self, every_n_steps: int, info: RunInfo):
        self._every, self._total = every_n_steps, info.total_steps
        self._shown = info.start_step

    def write(self, row: Row) -> None:
        """Print a row that is due."""
        step = row["step"]
        if row["split"] == "train":
            if step // self._every == self._shown // self._every:
                return
            self._shown = step
        member = f" [{row['member']}]" if "member" in row else ""
        place = place_text(step, self._total)
        print(f"{place}  epoch {row['epoch']}  {row['split']}{member}  {figures_text(row['metrics'])}", flush=True)

    def close(self) -> None:
        """Nothing to close."""
