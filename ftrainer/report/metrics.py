"""A metrics file, read whole and fast: it may be missing, still growing, or torn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from ftrainer.components.loggers.outcome import Outcome
from ftrainer.components.loggers.record import Record, SeriesKey
from ftrainer.components.loggers.rows import read_lines

Columns = tuple[list[int], list[float]]


@attrs.define(kw_only=True)
class Metrics:
    """What a run logged.

    Attributes:
        record: every figure.
        outcome: what became of the members; None for a plain run.
        seconds: of training at the last row; those before a resume are not in it.
        damaged: lines that could not be read, a torn last one included.
    """

    record: Record
    outcome: Outcome | None = None
    seconds: float | None = None
    damaged: int = 0


def read_metrics(path: Path, members: Sequence[Mapping[str, Any]] = ()) -> Metrics:
    """All figures of a file.

    Args:
        path: the file.
        members: what sets each member of a replicated run apart; taken from the rows unless given.
    """
    series: dict[tuple[str, str, str], Columns] = {}
    rows = Rows()
    for line in read_lines(path):
        rows.take(line, series)
    record = Record({SeriesKey(*key): columns for key, columns in series.items()})
    return Metrics(record=record, outcome=rows.outcome(members), seconds=rows.seconds, damaged=rows.damaged)


class Rows:
    """What is remembered of the rows besides their figures."""

    def __init__(self) -> None:
        self.damaged, self.seconds = 0, None
        self._members: list[dict[str, Any]] = []

    def take(self, line: str, series: dict[tuple[str, str, str], Columns]) -> None:
        """Add a row's figures to the columns; a line that is no row is counted."""
        try:
            row = json.loads(line)
            step, split, member = row["step"], row["split"], str(row.get("member", ""))
            values = [(name, float(value)) for name, value in row["metrics"].items()]
            if type(step) is not int or not isinstance(split, str):
                raise TypeError("is no row of metrics")
        except (ValueError, KeyError, TypeError, AttributeError):
            self.damaged += 1
            return
        for name, value in values:
            steps, column = series.setdefault((name, split, member), ([], []))
            steps.append(step)
            column.append(value)
        self.seconds = row.get("time", self.seconds)
        if isinstance(row.get("member"), int):
            self._members.append(row)

    def outcome(self, members: Sequence[Mapping[str, Any]]) -> Outcome | None:
        """What became of the members; None for a plain run."""
        known = {row["member"]: row.get("values", {}) for row in self._members}
        who = tuple(members) or tuple(known.get(index, {}) for index in range(max(known, default=-1) + 1))
        if not who:
            return None
        outcome = Outcome(who)
        for row in self._members:
            if row["member"] < len(who):
                outcome.add(row)
        return outcome
