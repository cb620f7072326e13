"""Learning curves of one or many runs as a picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ftrainer.components.data.extras import require
from ftrainer.components.loggers.drawing import DASH_ARRAYS, OKABE_ITO, curve, draw, finish_panel
from ftrainer.components.loggers.record import Record
from registry import ConfigError, Issue

from .groups import Group, Trace, mean_and_band, smoothed, title_of
from .thin import evenly

FORMATS = (".png", ".svg")
DASHES = tuple(DASH_ARRAYS)
POINTS = 1000
"""Places along the steps at which a mean and its band are drawn: more than the panel has pixels."""
BAND = "line: mean of seeds, band: ±1 standard deviation"


def write_plot(path: Path, groups: Sequence[Group], figures: Sequence[str]) -> None:
    """Draw and save.

    Args:
        path: PNG or SVG, by its ending.
        groups: what to draw; one plain run shows its splits together, several runs share a panel for each figure.
        figures: `split/name`.

    Raises:
        ConfigError: the path ends otherwise, or leads into no directory.
        ModuleNotFoundError: matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(
            [Issue(problem="is no picture's name", found=repr(str(path)), expected="a name ending in .png or .svg")]
        )
    if not path.parent.is_dir():
        raise ConfigError([Issue(problem="no such directory", found=repr(str(path.parent)))])
    picture(groups, figures).savefig(path, dpi=120)


def picture(groups: Sequence[Group], figures: Sequence[str]) -> Any:
    """A matplotlib figure; no global state of pyplot is touched."""
    if len(groups) == 1 and groups[0].n == 1 and not groups[0].members:
        record = chosen(groups[0].runs[0].record, figures)
        return draw(record, record.names(), "\n".join(textwrap.wrap(title_of(groups), 80)))
    return overlaid(groups, figures)


def chosen(record: Record, figures: Sequence[str]) -> Record:
    """A record of some figures."""
    return Record({key: found for key, found in record.series.items() if f"{key.split}/{key.name}" in figures})


def overlaid(groups: Sequence[Group], figures: Sequence[str]) -> Any:
    """A panel for each figure with a curve for each group, and one legend for all."""
    module = require("matplotlib.figure", extra="plots", by="ftrainer plot")
    columns = min(3, len(figures))
    rows = math.ceil(len(figures) / columns)
    legend = 0.25 * math.ceil(len(groups) / 3) + 0.2
    picture = module.Figure(figsize=(max(6.5, 4.2 * columns), 3.2 * rows + 0.7 + legend), layout="constrained")
    seeds = f"\n{BAND}" if any(group.n > 1 for group in groups) else ""
    picture.suptitle(("\n".join(textwrap.wrap(title_of(groups), 32 * columns + 20)) + seeds).replace("$", r"\$"))
    grid = list(picture.subplots(rows, columns, squeeze=False).flat)
    handles: dict[str, Any] = {}
    for axes, figure in zip(grid, figures, strict=False):
        group_panel(axes, figure, groups)
        axes.set_xlabel("step")
        handles |= {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}
        if axes.get_legend() is not None:
            axes.get_legend().remove()
    for axes in grid[len(figures) :]:
        axes.set_axis_off()
    picture.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(3, len(handles)),
                   frameon=False, fontsize="small")  # fmt: skip
    return picture


def group_panel(axes: Any, figure: str, groups: Sequence[Group]) -> None:
    """One figure: each group in its colour and its dashes."""
    shown: list[np.ndarray] = []
    reaches = [0]
    for index, group in enumerate(groups):
        traces = group.traces(figure)
        if traces:
            look = look_of(index) | {"label": group.label.replace("$", r"\$")}
            lines, reach = group_curve(axes, traces, look)
            shown += lines
            reaches.append(reach)
    finish_panel(axes, figure, shown, max(reaches))


def group_curve(axes: Any, traces: Sequence[Trace], look: dict[str, Any]) -> tuple[list[np.ndarray], int]:
    """One group's line, with a band where it has several seeds; the numbers shown, and the reach of a running mean."""
    if len(traces) == 1:
        return [traces[0].values], curve(axes, traces[0].steps, traces[0].values, **look)
    traces, reach = smoothed(traces)
    steps, mean, low, high = mean_and_band(traces)
    keep = evenly(len(steps), POINTS)
    steps, mean, low, high = steps[keep], mean[keep], low[keep], high[keep]
    axes.plot(steps, mean, marker="o" if len(steps) == 1 else "", markersize=3.5, **look)
    axes.fill_between(steps, low, high, color=look["color"], alpha=0.15, linewidth=0)
    return [low, high], reach


def look_of(index: int) -> dict[str, Any]:
    """A colour and dashes for a curve, both different from its neighbours'; 28 different ones.

    >>> look_of(0), look_of(8)
    ({'color': '#0072B2', 'linestyle': 'solid'}, {'color': '#D55E00', 'linestyle': 'solid'})
    """
    colours = OKABE_ITO[:-1]
    return {"color": colours[index % len(colours)], "linestyle": DASHES[index % len(DASHES)]}
