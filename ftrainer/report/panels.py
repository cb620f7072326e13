"""Interactive curves: the plots of the page, and how much was left out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from ftrainer.components.data.extras import require
from ftrainer.components.loggers.drawing import running_mean, smoothing_reach, wants_log

from .groups import Group, Trace, mean_and_band, smoothed
from .plots import look_of
from .thin import evenly, extremes

POINTS, MOST, LEAST = 100_000, 1000, 60
"""Points on the whole page, and on one line at most and at least; a panel is at most some 600 pixels wide."""
FEW = 12
"""Points up to which each is marked."""
TOOLS = "pan,box_zoom,wheel_zoom,reset,save"


@attrs.frozen(kw_only=True)
class Line:
    """What one group shows of one figure.

    Attributes:
        group: its place among the groups.
        label: the group's.
        look: colour and line style.
        main: the line, a mean of rows or of seeds where that is said.
        raw: every value that was logged, where `main` is a running mean.
        low, high: a band around `main`, at its steps.
        reach: of the running mean; 0 where there is none.
    """

    group: int
    label: str
    look: dict[str, Any]
    main: Trace
    raw: Trace | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    reach: int = 0


def lines_of(groups: Sequence[Group], figure: str) -> list[Line]:
    """A line for each group that logged the figure."""
    found = [(index, group, group.traces(figure)) for index, group in enumerate(groups)]
    return [line_of(index, group.label, traces) for index, group, traces in found if traces]


def line_of(index: int, label: str, traces: Sequence[Trace]) -> Line:
    """One seed's running mean over its values, or several seeds' mean and band."""
    look = look_of(index)
    if len(traces) > 1:
        means, reach = smoothed(traces)
        steps, mean, low, high = mean_and_band(means)
        return Line(group=index, label=label, look=look, main=Trace(steps, mean), low=low, high=high, reach=reach)
    (trace,) = traces
    reach = smoothing_reach(trace.values)
    if not reach:
        return Line(group=index, label=label, look=look, main=trace)
    mean = running_mean(trace.values, reach)
    return Line(group=index, label=label, look=look, main=Trace(trace.steps, mean), raw=trace, reach=reach)


def thinned(line: Line, limit: int) -> Line:
    """The line with at most `limit` points."""
    keep = evenly(len(line.main.steps), limit) if line.low is not None else extremes(line.main.values, limit)
    band = {} if line.low is None or line.high is None else {"low": line.low[keep], "high": line.high[keep]}
    raw = None if line.raw is None else taken(line.raw, extremes(line.raw.values, limit))
    return attrs.evolve(line, main=taken(line.main, keep), raw=raw, **band)


def taken(trace: Trace, keep: np.ndarray) -> Trace:
    """Some points of a curve."""
    return Trace(trace.steps[keep], trace.values[keep])


def limit_for(n_lines: int) -> int:
    """Points for each of so many lines.

    >>> limit_for(1), limit_for(400), limit_for(10_000)
    (1000, 250, 60)
    """
    return max(LEAST, min(MOST, POINTS // max(n_lines, 1)))


def panels(lines: Mapping[str, Sequence[Line]]) -> tuple[dict[str, Any], int, int]:
    """A plot for each figure's lines, the points per line, and how many curves were thinned."""
    everything = [line for found in lines.values() for line in found]
    limit = limit_for(sum(1 + (line.raw is not None) + 2 * (line.low is not None) for line in everything))
    plotting = require("bokeh.plotting", extra="report", by="ftrainer report")
    models = require("bokeh.models", extra="report", by="ftrainer report")
    steps = models.DataRange1d(range_padding=0.02)
    plots = {figure: panel(plotting, models, figure, found, steps, limit) for figure, found in lines.items()}
    return plots, limit, sum(len((line.raw or line.main).steps) > limit for line in everything)


def panel(plotting: Any, models: Any, figure: str, lines: Sequence[Line], steps: Any, limit: int) -> Any:
    """One figure's plot; all plots share the range of steps, so that zooming one zooms all."""
    values = [x for line in lines for x in (line.main.values, line.low, line.high) if x is not None]
    scale = "log" if wants_log(np.concatenate(values)) else "linear"
    plot = plotting.figure(
        height=300, sizing_mode="stretch_width", y_axis_type=scale, x_range=steps, tools=TOOLS, min_width=200,
        toolbar_location="above", active_drag="box_zoom", name=figure, output_backend="canvas",
    )  # fmt: skip
    plot.toolbar.logo, plot.toolbar.autohide = None, True
    plot.xaxis.axis_label, plot.outline_line_color = "step", None
    plot.xaxis.formatter = models.NumeralTickFormatter(format="0.[0]a")
    plot.yaxis.ticker.desired_num_ticks, plot.yaxis.minor_tick_line_color = 5, None
    plot.grid.grid_line_alpha = 0.5
    hoverable = [draw(plot, models, thinned(line, limit)) for line in lines]
    tips = [("", "$name"), ("step", "@step{0,0}"), (figure, "@value{0.0000e+0}")]
    plot.add_tools(models.HoverTool(renderers=hoverable, tooltips=tips, line_policy="nearest"))
    return plot


def draw(plot: Any, models: Any, line: Line) -> Any:
    """Put a line, and the band or the raw values behind it, into a plot; the renderer of the line itself.

    Renderers carry as tags what the page's switches show and hide.
    """
    colour, dashes = line.look["color"], line.look["linestyle"].replace("dashdot", "dotdash")
    group = f"group-{line.group}"
    if line.raw is not None:
        raw = source_of(models, step=line.raw.steps, value=line.raw.values)
        plot.line("step", "value", source=raw, color=colour, alpha=0.22, line_width=1).tags = [group, "raw"]
    if line.low is not None and line.high is not None:
        band = source_of(models, step=line.main.steps, low=line.low, high=line.high)
        plot.varea("step", "low", "high", source=band, color=colour, alpha=0.16).tags = [group, "band"]
    points = source_of(models, step=line.main.steps, value=line.main.values)
    if len(line.main.steps) < FEW:
        plot.scatter("step", "value", source=points, color=colour, size=6).tags = [group]
    drawn = plot.line("step", "value", source=points, color=colour, line_dash=dashes, line_width=2, name=line.label)
    drawn.tags = [group, "line"]
    return drawn


def source_of(models: Any, **columns: np.ndarray) -> Any:
    """Columns as a plot holds them."""
    return models.ColumnDataSource({name: compact(column) for name, column in columns.items()})


def compact(numbers: np.ndarray) -> np.ndarray:
    """Numbers in half the bytes, where they survive that well enough to be drawn.

    >>> compact(np.array([1, 2])).dtype, compact(np.array([0.5])).dtype, compact(np.array([1e300])).dtype
    (dtype('int32'), dtype('float32'), dtype('float64'))
    """
    if np.issubdtype(numbers.dtype, np.integer):
        return numbers.astype(np.int32) if np.abs(numbers).max(initial=0) < 2**31 else numbers.astype(np.float64)
    sizes = np.abs(numbers[numbers != 0])
    fits = not len(sizes) or (sizes.max() < 1e38 and sizes.min() > 1e-37)
    return numbers.astype(np.float32) if fits else numbers
