"""The members of a replicated run side by side: tables, a picture, and everything as data."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ftrainer.components.base import LogSink, RunInfo
from registry.spec import component, thaw

from .estimates import LEVEL, cells
from .members_plot import Traces, draw
from .outcome import Outcome, less_is_better, value_text, values_text
from .rows import Row, history, number_text, replace_text

SHOWN = 20
"""Rows of swept values that a table shows, the best ones."""


@component
class Members:
    """What the members of a replicated run come to: mean, deviation, interquartile mean with its bootstrap interval,
    the best member, and the effect of each swept value (`log.members`).

    Who the members are is written when the run begins; the tables are printed, and the data and the picture written,
    when it ends. A plain run has nothing to show.

    Attributes:
        path: the data, under the run's directory unless absolute.
        picture: the curves, likewise; needs matplotlib, and is left out without it.
        history: the metrics file, under the run's directory, where a resumed run finds its earlier rows.
    """

    path: str = "members.json"
    picture: str = "members.png"
    history: str = "metrics.jsonl"

    def open(self, info: RunInfo) -> LogSink:
        """Begin with what was logged before a resume, and write down who the members are."""
        sink = MembersSink(info, info.out_dir / self.path, info.out_dir / self.picture)
        for row in history(info.out_dir / self.history, info.start_step):
            sink.write(row)
        if info.members:
            sink.store({})
        return sink


@attrs.frozen
class MembersSink:
    """Collects rows until the run ends."""

    info: RunInfo
    path: Path
    picture: Path
    outcome: Outcome = attrs.field(
        default=attrs.Factory(lambda self: Outcome(tuple(thaw(m) for m in self.info.members)), takes_self=True)
    )
    traces: Traces = attrs.field(factory=Traces)

    def write(self, row: Row) -> None:
        """Keep a member's row."""
        if "member" in row:
            self.outcome.add(row)
            self.traces.add(row)

    def close(self) -> None:
        """Print and write, if there is anything to tell."""
        if not self.outcome.final:
            return
        self.store(self.outcome.as_json())
        console = Console()
        for table in tables(self.info.name, self.outcome):
            console.print(table)
        for line in (*best_line(self.outcome), *endings(self.outcome)):
            console.print(line, markup=False, highlight=False)
        if importlib.util.find_spec("matplotlib") is not None:
            draw(self.traces, self.outcome, self.info.name).savefig(self.picture, dpi=120)

    def store(self, results: Mapping[str, Any]) -> None:
        """Write the data, whole or not at all."""
        who = [{"member": index, "values": dict(values)} for index, values in enumerate(self.outcome.members)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"name": self.info.name, "layout": thaw(self.info.layout), "members": who, **results}
        replace_text(self.path, [json.dumps(plain(content), indent=1, allow_nan=False), "\n"])


def tables(title: str, outcome: Outcome) -> Iterator[Table]:
    """One table of figures, and where values are swept one of their rows and one of each value's effect."""
    yield figures_table(title, outcome)
    headline = outcome.headline()
    if headline is not None and outcome.swept():
        yield rows_table(headline, outcome)
        if len(outcome.swept()) > 1:
            yield effects_table(headline, outcome)


def figures_table(title: str, outcome: Outcome) -> Table:
    """Every figure over all members."""
    table = new_table(f"{title}: {len(outcome.members)} members", "figure")
    for heading in (*ESTIMATE, "best [who]"):
        table.add_column(escape(heading), justify="right", no_wrap=True)
    for name in outcome.figures():
        table.add_row(escape(name), *cells(outcome.over(name)), escape(best_text(outcome, name)))
    return table


def rows_table(figure: str, outcome: Outcome) -> Table:
    """One figure for every row of swept values, the best first."""
    found = {key: outcome.over(figure, who) for key, who in outcome.rows().items()}
    sign = 1 if less_is_better(figure) else -1
    ranked = sorted(found, key=lambda key: (math.isnan(found[key].iqm), sign * found[key].iqm))
    title = f"{figure} by values" + (f", the best {SHOWN}" if len(ranked) > SHOWN else "")
    table = new_table(title, *short_names(outcome.swept()))
    for heading in ("runs", *ESTIMATE):
        table.add_column(heading, justify="right")
    for key in ranked[:SHOWN]:
        table.add_row(*map(value_text, key), str(found[key].n), *cells(found[key]))
    return table


def effects_table(figure: str, outcome: Outcome) -> Table:
    """One figure for each value of each path, over everything else that is swept."""
    names = dict(zip(outcome.swept(), short_names(outcome.swept()), strict=True))
    table = new_table(f"{figure} by one value, over all others", "field", "value")
    for heading in ("runs", *ESTIMATE):
        table.add_column(heading, justify="right")
    for path, value, found in outcome.effects(figure):
        table.add_row(escape(names[path]), value_text(value), str(found.n), *cells(found))
    return table


ESTIMATE = ("mean ± sd", "IQM", f"{LEVEL:.0%} interval")


def best_text(outcome: Outcome, figure: str) -> str:
    """The best member's value and number."""
    best = outcome.best(figure)
    return "–" if best is None else f"{number_text(outcome.final[figure][best])} [{best}]"


def best_line(outcome: Outcome) -> Iterator[str]:
    """Who is best by the figure that members are ranked by."""
    headline = outcome.headline()
    best = None if headline is None else outcome.best(headline)
    if best is not None:
        yield f"best by {headline}: member {best} ({values_text(outcome.members[best])})"


def endings(outcome: Outcome) -> Iterator[str]:
    """A line for each member that ended before the run did."""
    for who, reason in sorted(outcome.ended.items()):
        yield f"member {who} ({values_text(outcome.members[who])}) ended early: {reason}"


def new_table(title: str, *headings: str) -> Table:
    """A table with left-aligned columns so far."""
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    for heading in headings:
        table.add_column(escape(heading), no_wrap=True)
    return table


def short_names(paths: Sequence[str]) -> list[str]:
    """Paths cut to their last part, where that tells them apart.

    >>> short_names(["optimizer.lr", "loss.weight"]), short_names(["a.lr", "b.lr"])
    (['lr', 'weight'], ['a.lr', 'b.lr'])
    """
    last = [path.rpartition(".")[2] for path in paths]
    return last if len(set(last)) == len(last) else list(paths)


def plain(value: Any) -> Any:
    """Data that JSON can hold: null for figures that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
