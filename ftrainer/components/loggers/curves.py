"""Learning curves as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from ftrainer.components.base import LogSink, RunInfo
from ftrainer.components.data.extras import require
from registry.spec import component

from .record import Record, SeriesKey
from .rows import Row, history, number_text

COLOURS = MappingProxyType({"train": "#0072B2", "val": "#D55E00", "eval": "#009E73"})
"""Blue, vermilion and green of Okabe and Ito (2008), told apart by readers with any colour vision."""
MARKERS = MappingProxyType({"train": "", "val": "o", "eval": "s"})
MANY = 100
"""Points from which a curve is drawn pale, with a running mean over it."""
LOG_SPAN = 30.0
"""How many times the lowest value the highest must be for a logarithmic axis."""


@component
class Curves:
    """A PNG with one panel for each figure: training, validation and evaluation in their colours (`log.curves`).

    Attributes:
        path: the picture, under the run's directory unless absolute.
        figures: the names to draw; all of them unless given.
        history: the metrics file, under the run's directory, where a resumed run finds its earlier rows.
    """

    path: str = "curves.png"
    figures: tuple[str, ...] | None = None
    history: str = "metrics.jsonl"

    def open(self, info: RunInfo) -> LogSink:
        """Begin with what was logged before a resume.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        require("matplotlib", extra="plots", by="log.curves")
        record = Record()
        for row in history(info.out_dir / self.history, info.start_step):
            record.add(row)
        return CurvesSink(info.out_dir / self.path, info.name, self.figures, record)


@attrs.frozen
class CurvesSink:
    """Collects rows until the run ends."""

    path: Path
    title: str
    figures: tuple[str, ...] | None
    record: Record

    def write(self, row: Row) -> None:
        """Keep the row's figures."""
        self.record.add(row)

    def close(self) -> None:
        """Draw, if there is anything to draw."""
        names = [name for name in self.record.names() if self.figures is None or name in self.figures]
        if names:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draw(self.record, names, self.title).savefig(self.path, dpi=120)


def draw(record: Record, names: Sequence[str], title: str) -> Any:
    """A matplotlib figure with a panel for each name; no global state of pyplot is touched."""
    figure_module = require("matplotlib.figure", extra="plots", by="log.curves")
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = figure_module.Figure(figsize=(max(6.0, 4.2 * columns), 3.2 * rows + 0.5), layout="constrained")
    figure.suptitle(title, fontweight="bold")
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes, name in zip(grid, names, strict=False):
        panel(axes, name, {key: series for key, series in record.series.items() if key.name == name})
    for axes in list(grid)[len(names) :]:
        axes.set_axis_off()
    return figure


def panel(axes: Any, name: str, curves: dict[SeriesKey, tuple[list[int], list[float]]]) -> None:
    """One figure's curves, each labelled with its last value."""
    everything: list[float] = []
    for key, (steps, values) in curves.items():
        points = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
        if points:
            everything += [value for _, value in points]
            curve(axes, key, [step for step, _ in points], [value for _, value in points])
    if wants_log(everything):
        axes.set_yscale("log")
    axes.set_title(name, fontsize="medium")
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if everything:
        axes.legend(frameon=False, fontsize="small")


def curve(axes: Any, key: SeriesKey, steps: Sequence[int], values: Sequence[float]) -> None:
    """One line; where points are many, pale with its running mean on top."""
    colour = COLOURS.get(key.split, "#000000")
    label = f"{key.split}{f' [{key.member}]' if key.member else ''}: {number_text(values[-1])}"
    if len(values) < MANY:
        marker = MARKERS.get(key.split, "") or ("o" if len(values) == 1 else "")
        axes.plot(steps, values, color=colour, marker=marker, markersize=3.5, label=label)
        return
    axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(steps, running_mean(values, len(values) // 25), color=colour, label=label)


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """The mean of the last `window` values at each place, of fewer at the start.

    >>> running_mean([1.0, 3.0, 5.0, 7.0], 2)
    [1.0, 2.0, 4.0, 6.0]
    """
    return [math.fsum(values[max(0, i + 1 - window) : i + 1]) / min(i + 1, window) for i in range(len(values))]


def wants_log(values: Sequence[float]) -> bool:
    """Whether values are positive and span so much that a linear axis would show a flat line.

    >>> wants_log([1.0, 0.5, 0.01]), wants_log([1.0, 0.5]), wants_log([1.0, 0.0]), wants_log([])
    (True, False, False, False)
    """
    return bool(values) and min(values) > 0 and max(values) / min(values) >= LOG_SPAN
