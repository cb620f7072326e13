"""How curves are drawn: shared by what draws while training and by what draws many runs afterwards."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ftrainer.components.data.extras import require

from .record import Record, SeriesKey
from .rows import number_text

COLOURS = MappingProxyType({"train": "#0072B2", "val": "#D55E00", "eval": "#009E73"})
"""Blue, vermilion and green of Okabe and Ito (2008), told apart by readers with any colour vision."""
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""All eight of them, the one that is pale on white last."""
DASH_ARRAYS = MappingProxyType({"solid": "", "dashed": "7 3", "dashdot": "7 3 1.5 3", "dotted": "1.5 3"})
"""Line styles by matplotlib's names, as SVG writes them."""
MARKERS = MappingProxyType({"train": "", "val": "o", "eval": "s"})
MANY = 100
"""Points from which a curve is drawn pale, with a running mean over it."""
LOG_SPAN = 30.0
"""How many times the lowest value the highest must be for a logarithmic axis."""


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
    figure.suptitle("\n".join([title.replace("$", r"\$"), *lines_of(once, 40 * columns)]))
    grid = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    for axes, name in zip(grid, drawn, strict=False):
        panel(axes, name, curves[name])
    for axes in grid[len(drawn) :]:
        axes.set_axis_off()
    for axes in grid[max(0, len(drawn) - columns) : len(drawn)]:
        axes.set_xlabel("step")
        axes.tick_params(labelbottom=True)
    return figure


def lines_of(texts: Sequence[str], width: int) -> list[str]:
    """Short texts side by side, in lines that break between them.

    >>> lines_of(["eval/return 282.3", "eval/success 1"], 20)
    ['eval/return 282.3', 'eval/success 1']
    """
    whole = "   ".join(text.replace(" ", "\N{NO-BREAK SPACE}") for text in texts)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in textwrap.wrap(whole, width)]


def point_text(key: SeriesKey, steps: Sequence[int], values: Sequence[float]) -> str:
    """A figure that was logged once.

    >>> point_text(SeriesKey("return", "eval"), [5000], [282.3])
    'eval/return 282.3'
    """
    del steps
    return f"{key.label}/{key.name} {number_text(values[-1])}".replace("$", r"\$")


def panel(axes: Any, name: str, curves: Mapping[SeriesKey, tuple[Sequence[int], Sequence[float]]]) -> None:
    """One figure's curves, each labelled with its last value."""
    shown: list[np.ndarray] = []
    reaches: list[int] = []
    for key, (steps, values) in curves.items():
        at, finite = finite_points(steps, values)
        if len(at):
            shown.append(finite)
            look = {"color": COLOURS.get(key.split, "#000000"), "label": f"{key.label} {number_text(finite[-1])}"}
            reaches.append(curve(axes, at, finite, marker=MARKERS.get(key.split, ""), **look))
    finish_panel(axes, name, shown, max(reaches, default=0))


def finish_panel(axes: Any, name: str, shown: Sequence[np.ndarray], reach: int) -> None:
    """Axes, grid, title and legend; how many rows the lines are means of, where they are."""
    if shown and wants_log(np.concatenate(shown)):
        axes.set_yscale("log")
    axes.set_title(name.replace("$", r"\$"), fontsize="medium")
    if reach:
        axes.set_title(smoothing_text(reach), fontsize="x-small", loc="right", color="#555555")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if shown:
        axes.legend(frameon=False, fontsize="small")


def curve(axes: Any, steps: np.ndarray, values: np.ndarray, *, marker: str = "", **look: Any) -> int:
    """One line; where points are many and noisy, pale with its running mean on top. The reach of the mean, or 0."""
    reach = smoothing_reach(values)
    if reach:
        axes.plot(steps, values, **look | {"alpha": 0.25, "linewidth": 0.8, "label": None})
        axes.plot(steps, running_mean(values, reach), **look)
    else:
        shape = "o" if len(values) == 1 else marker if len(values) < MANY else ""
        axes.plot(steps, values, marker=shape, markersize=3.5, **look)
    return reach


def finite_points(steps: Sequence[int], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Steps (N,) and values (N,) without those that are not finite.

    >>> finite_points([1, 2, 3], [0.5, float("nan"), 0.25])[0].tolist()
    [1, 3]
    """
    at, numbers = np.asarray(steps), np.asarray(values, dtype=np.float64)
    keep = np.isfinite(numbers)
    return at[keep], numbers[keep]


def smoothing_reach(values: np.ndarray) -> int:
    """How far to each side the running mean of a curve should reach; 0 where it needs none."""
    return len(values) // 50 if len(values) >= MANY and is_noisy(values) else 0


def smoothing_text(reach: int) -> str:
    """What was done to a curve, for its reader.

    >>> smoothing_text(10)
    'line: mean of 21 rows'
    """
    return f"line: mean of {2 * reach + 1} rows"


def is_noisy(values: np.ndarray) -> bool:
    """Whether a curve goes up and down much more than from one end to the other.

    >>> is_noisy(np.array([3.0, 2.0, 1.0])), is_noisy(np.array([1.0, 2.0] * 10))
    (False, True)
    """
    return bool(np.abs(np.diff(values)).sum() > 4 * (values.max() - values.min()))


def running_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """At each place the mean of the values at most `reach` places away.

    >>> running_mean(np.array([1.0, 3.0, 5.0, 7.0]), 1).tolist()
    [2.0, 3.0, 5.0, 6.0]
    """
    window = np.ones(min(2 * reach + 1, 2 * len(values) - 1))
    start = len(window) // 2
    inside = slice(start, start + len(values))
    return np.convolve(values, window)[inside] / np.convolve(np.ones(len(values)), window)[inside]


def wants_log(values: Sequence[float] | np.ndarray) -> bool:
    """Whether values are positive and span so much that a linear axis would show a flat line.

    >>> wants_log([1.0, 0.5, 0.01]), wants_log([1.0, 0.5]), wants_log([1.0, 0.0]), wants_log([])
    (True, False, False, False)
    """
    if not len(values):
        return False
    low, high = float(np.min(values)), float(np.max(values))
    return low > 0 and high / low >= LOG_SPAN
