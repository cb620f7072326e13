"""Curves of a replicated run: for each row of swept values the interquartile mean over seeds, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs

from ftrainer.components.data.extras import require

from .drawing import OKABE_ITO, wants_log
from .estimates import LEVEL, estimate
from .outcome import Outcome, less_is_better, value_text
from .rows import Row

POINTS, REPETITIONS = 80, 1000
"""Places along the steps at which a curve is estimated, and the size of the bootstrap there."""


@attrs.frozen
class Traces:
    """Every value of every figure: by `split/name`, step and member."""

    values: dict[str, dict[int, dict[int, float]]] = attrs.field(factory=dict)

    def add(self, row: Row) -> None:
        """Take in a row of one member."""
        for name, value in row["metrics"].items():
            at_step = self.values.setdefault(f"{row['split']}/{name}", {}).setdefault(row["step"], {})
            at_step[row["member"]] = float(value)


def draw(traces: Traces, outcome: Outcome, title: str) -> Any:
    """A matplotlib figure with a panel for each figure that was logged more than once, or for all if none was.

    At most as many rows of swept values as there are colours are drawn, the best ones by the figure that members are
    ranked by.
    """
    module = require("matplotlib.figure", extra="plots", by="log.members")
    names = [name for name in outcome.figures() if len(traces.values[name]) > 1] or outcome.figures()
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = module.Figure(figsize=(max(6.0, 4.2 * columns), 3.2 * rows + 0.9), layout="constrained")
    figure.suptitle(f"{title}\nIQM over seeds, band: {LEVEL:.0%} bootstrap interval".replace("$", r"\$"))
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    chosen = shown_rows(outcome)
    for axes, name in zip(grid, names, strict=False):
        panel(axes, name, traces.values[name], chosen, outcome.swept())
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    return figure


def shown_rows(outcome: Outcome) -> dict[tuple[Any, ...], list[int]]:
    """The rows of swept values to draw, with their members."""
    rows, headline = outcome.rows(), outcome.headline()
    if len(rows) <= len(OKABE_ITO) or headline is None:
        return rows
    sign = 1 if less_is_better(headline) else -1
    iqms = {key: estimate([outcome.values(headline, who)], REPETITIONS).iqm for key, who in rows.items()}
    ranked = sorted(rows, key=lambda key: (math.isnan(iqms[key]), sign * iqms[key]))
    return {key: rows[key] for key in ranked[: len(OKABE_ITO)]}


def panel(
    axes: Any, name: str, values: dict[int, dict[int, float]], rows: dict[tuple[Any, ...], list[int]], paths: list[str]
) -> None:
    """One figure: a curve and its band for each row of swept values."""
    everything: list[float] = []
    for colour, (key, members) in zip(OKABE_ITO, rows.items(), strict=False):
        label = " ".join(f"{p.rpartition('.')[2]}={value_text(v)}" for p, v in zip(paths, key, strict=True))
        everything += band(axes, values, members, colour, label or f"{len(members)} members")
    if wants_log(everything):
        axes.set_yscale("log")
    axes.set_title(name, fontsize="medium")
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if everything:
        axes.legend(frameon=False, fontsize="x-small")


def band(
    axes: Any, values: dict[int, dict[int, float]], members: Sequence[int], colour: str, label: str
) -> list[float]:
    """One row's curve; the numbers that it shows."""
    steps = thinned(
        [step for step, by in sorted(values.items()) if any(math.isfinite(by.get(m, math.nan)) for m in members)]
    )
    found = [estimate([[values[step][m] for m in members if m in values[step]]], REPETITIONS) for step in steps]
    if not found:
        return []
    lows, highs, middles = ([getattr(e, name) for e in found] for name in ("low", "high", "iqm"))
    axes.plot(steps, middles, color=colour, label=label, marker="o" if len(steps) < 12 else "", markersize=3.5)
    axes.fill_between(steps, lows, highs, color=colour, alpha=0.2, linewidth=0)
    return [*lows, *highs]


def thinned(steps: Sequence[int]) -> list[int]:
    """At most `POINTS` of them, evenly, the last one included.

    >>> len(thinned(range(1000))), thinned(range(1000))[-1], thinned([3, 7])
    (80, 999, [3, 7])
    """
    if len(steps) <= POINTS:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (POINTS - 1))] for i in range(POINTS)]
