"""A table at the end of the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import attrs
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ftrainer.components.base import LogSink, RunInfo
from registry.spec import component

from .record import Record
from .rows import Row, history, number_text


@component
class Summary:
    """The last, lowest and highest value of every figure (`log.summary`).

    Attributes:
        history: the metrics file, under the run's directory, where a resumed run finds its earlier rows.
    """

    writes: ClassVar[bool] = False

    history: str = "metrics.jsonl"

    def open(self, info: RunInfo) -> LogSink:
        """Begin with what was logged before a resume."""
        record = Record()
        for row in history(info.out_dir / self.history, info.start_step):
            record.add(row)
        return SummarySink(info, record, Console())


@attrs.frozen
class SummarySink:
    """Collects rows until the run ends."""

    info: RunInfo
    record: Record
    console: Console

    def write(self, row: Row) -> None:
        """Keep the row's figures."""
        self.record.add(row)

    def close(self) -> None:
        """Print the table, if there is anything to tell."""
        if self.record.series:
            self.console.print(summary_table(self.info.name, self.record))


def summary_table(title: str, record: Record) -> Table:
    """One row for each figure, split by split in the order in which they first appeared, the loss first."""
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    table.add_column("figure")
    for heading in ("last", "lowest", "at step", "highest", "at step"):
        table.add_column(heading, justify="right")
    splits = list(dict.fromkeys(key.split for key in record.series))
    for key in sorted(record.series, key=lambda key: (splits.index(key.split), key.name != "loss")):
        steps, values = record.series[key]
        table.add_row(escape(f"{key.label}/{key.name}"), *summary_cells(steps, values))
    return table


def summary_cells(steps: Sequence[int], values: Sequence[float]) -> tuple[str, ...]:
    """Last value, then lowest and highest with their steps; values that are not finite are neither.

    >>> summary_cells([10, 20, 30], [0.5, 0.25, float("nan")])
    ('nan', '0.25', '20', '0.5', '10')
    """
    finite = [(value, step) for value, step in zip(values, steps, strict=True) if math.isfinite(value)]
    if not finite:
        return (number_text(values[-1]), "–", "–", "–", "–")
    low, high = min(finite, key=lambda pair: pair[0]), max(finite, key=lambda pair: pair[0])
    return (number_text(values[-1]), number_text(low[0]), str(low[1]), number_text(high[0]), str(high[1]))
