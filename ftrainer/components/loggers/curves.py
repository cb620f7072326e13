"""Learning curves as a picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
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
    """A matplotlib figure: a panel for each name, and under the title what was logged only once.

    No global state of pyplot is touched.
    """
    figure_module = require("matplotlib.figure", extra="plots", by="log.curves")
    curves = {name: {key: s for key, s in record.series.items() if key.name == name} for name in names}
    drawn = [name for name in names if any(len(steps) > 1 for steps, _ in curves[name].values())] or list(names)
    columns = min(3, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    figure = figure_module.Figure(figsize=(max(6.0, 4.2 * columns), 3.2 * rows + 0.6), layout="constrained")
    once = [point_text(key, *curves[name][key]) for name in names if name not in drawn for key in curves[name]]
    figure.suptitle("\n".join([title.replace("$", r"\$"), *textwrap.wrap("   ".join(once), 40 * columns)]))
    grid = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    for axes, name in zip(grid, drawn, strict=False):
        panel(axes, name, curves[name])
    for axes in grid[len(drawn) :]:
        axes.set_axis_off()
    for axes in grid[max(0, len(drawn) - columns) : len(drawn)]:
        axes.set_xlabel("step")
        axes.tick_params(labelbottom=True)
    return figure


def point_text(key: SeriesKey, steps: Sequence[int], values: Sequence[float]) -> str:
    """A figure that was logged once.

    >>> point_text(SeriesKey("return", "eval"), [5000], [282.3])
    'eval/return 282.3'
    """
    del steps
    return f"{key.label}/{key.name} {number_text(values[-1])}".replace("$", r"\$")


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
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if everything:
        axes.legend(frameon=False, fontsize="small")


def curve(axes: Any, key: SeriesKey, steps: Sequence[int], values: Sequence[float]) -> None:
    """One line; where points are many and noisy, pale with its running mean on top."""
    colour = COLOURS.get(key.split, "#000000")
    label = f"{key.label} {number_text(values[-1])}"
    if len(values) < MANY or not is_noisy(values):
        marker = "o" if len(values) == 1 else MARKERS.get(key.split, "") if len(values) < MANY else ""
        axes.plot(steps, values, color=colour, marker=marker, markersize=3.5, label=label)
        return
    axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(steps, running_mean(values, len(values) // 50), color=colour, label=label)


def is_noisy(values: Sequence[float]) -> bool:
    """Whether a curve goes up and down much more than from one end to the other.

    >>> is_noisy([3.0, 2.0, 1.0]), is_noisy([1.0, 2.0] * 10)
    (False, True)
    """
    travelled = math.fsum(abs(b - a) for a, b in pairwise(values))
    return travelled > 4 * (max(values) - min(values))


def running_mean(values: Sequence[float], reach: int) -> list[float]:
    """At each place the mean of the values at most `reach` places away.

    >>> running_mean([1.0, 3.0, 5.0, 7.0], 1)
    [2.0, 3.0, 5.0, 6.0]
    """
    windows = (values[max(0, i - reach) : i + reach + 1] for i in range(len(values)))
    return [math.fsum(window) / len(window) for window in windows]


def wants_log(values: Sequence[float]) -> bool:
    """Whether values are positive and span so much that a linear axis would show a flat line.

    >>> wants_log([1.0, 0.5, 0.01]), wants_log([1.0, 0.5]), wants_log([1.0, 0.0]), wants_log([])
    (True, False, False, False)
    """
    return bool(values) and min(values) > 0 and max(values) / min(values) >= LOG_SPAN
