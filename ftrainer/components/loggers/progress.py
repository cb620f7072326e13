"""A live progress bar, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar

import attrs
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ftrainer.components import fields
from ftrainer.components.base import LogSink, RunInfo
from registry.spec import component

from .rows import Row, figures_text, number_text, place_text

REDRAW_SECONDS = 0.1
FIGURES = ("loss",)


@component
class ProgressBar:
    """Steps per second, loss and time left while the run goes on (`log.progress`).

    Attributes:
        figures: which training figures stand beside the bar.
        every_n_seconds: without a terminal, how often a plain line is printed; validation and evaluation always are.
    """

    per_member: ClassVar[bool] = False
    writes: ClassVar[bool] = False

    figures: tuple[str, ...] = FIGURES
    every_n_seconds: float = attrs.field(default=10.0, validator=fields.at_least(0))

    def open(self, info: RunInfo) -> LogSink:
        """The bar on a terminal, the lines elsewhere."""
        console = Console()
        return BarSink(self, info, console) if console.is_terminal else LinesSink(self, info, console)


class BarSink:
    """A rich bar, redrawn a few times a second however fast rows come; what is printed meanwhile stands above it."""

    def __init__(self, spec: ProgressBar, info: RunInfo, console: Console):
        self._figures, self._drawn, self._text = spec.figures, 0.0, ""
        self._step = info.start_step
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            SpeedColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, refresh_per_second=4, expand=True)
        self._task = self._progress.add_task(
            info.name, total=info.total_steps, completed=info.start_step, figures="", start=True
        )
        self._progress.start()

    def write(self, row: Row) -> None:
        """Move the bar, or print a judgement above it."""
        if row["split"] != "train":
            self._progress.console.print(judgement(row), highlight=False, markup=False)
            return
        self._step, self._text = row["step"], chosen(row, self._figures)
        if time.monotonic() - self._drawn >= REDRAW_SECONDS:
            self._draw()

    def close(self) -> None:
        """Leave the bar at the last step."""
        self._draw()
        self._progress.stop()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._progress.update(self._task, completed=self._step, figures=self._text)


class SpeedColumn(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        """The speed, once it is known."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed_text(speed)}", style="progress.data.speed")


class LinesSink:
    """Plain lines, for a log file."""

    def __init__(self, spec: ProgressBar, info: RunInfo, console: Console):
        self._figures, self._every = spec.figures, spec.every_n_seconds
        self._total, self._console = info.total_steps, console
        self._mark = (time.monotonic(), info.start_step)

    def write(self, row: Row) -> None:
        """Print a judgement, or training's figures if the last line is long enough ago."""
        if row["split"] != "train":
            self._print(judgement(row))
            return
        now, (then, before) = time.monotonic(), self._mark
        if now - then >= self._every:
            self._mark = (now, row["step"])
            speed = (row["step"] - before) / max(now - then, 1e-9)
            self._print(self._line(row, speed))

    def close(self) -> None:
        """Nothing to close."""

    def _line(self, row: Row, speed: float) -> str:
        step, total = row["step"], self._total
        left = [f"{timedelta(seconds=round((total - step) / speed))} left"] if total is not None and speed > 0 else []
        return " · ".join([place_text(step, total), speed_text(speed), chosen(row, self._figures), *left])

    def _print(self, line: str) -> None:
        print(line, file=self._console.file, flush=True)


def judgement(row: Row) -> str:
    """A validation or evaluation as a line.

    >>> judgement({"step": 20, "epoch": 1, "split": "val", "metrics": {"loss": 0.25}})
    'step 20 · epoch 1 · val: loss 0.25'
    """
    member = f" [{row['member']}]" if "member" in row else ""
    return f"step {row['step']} · epoch {row['epoch']} · {row['split']}{member}: {figures_text(row['metrics'])}"


def chosen(row: Row, figures: Sequence[str]) -> str:
    """The figures that stand beside the bar, those that the row has."""
    return figures_text({name: row["metrics"][name] for name in figures if name in row["metrics"]})


def speed_text(speed: float) -> str:
    """Steps per second as a person reads them.

    >>> speed_text(312.4), speed_text(0.0512)
    ('312 steps/s', '0.0512 steps/s')
    """
    return f"{speed:.0f} steps/s" if speed >= 100 else f"{number_text(speed)} steps/s"
