"""Rows as a table that grows columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftrainer.components.base import LogSink, RunInfo
from registry.spec import component

from .rows import Row, append, replace_text

FIXED = ("step", "epoch", "split")


@component
class CsvLogger:
    """One line for each row, one column for each figure (`log.csv`).

    A figure that was not there before adds a column on the right, for which the file is written anew. A cell is empty
    where a row lacks the figure; figures that are not finite are `nan`, `inf` and `-inf`. A run that is resumed drops
    the rows past its checkpoint first.

    Attributes:
        path: the file, under the run's directory unless absolute.
    """

    path: str = "metrics.csv"

    def open(self, info: RunInfo) -> LogSink:
        """Open the file for the rows after `info.start_step`."""
        path = info.out_dir / self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        columns, records = read_table(path) if info.start_step else ([*FIXED], [])
        kept = [record for record in records if int(record[0]) <= info.start_step]
        replace_text(path, table_lines(columns, kept))
        return CsvSink(path, columns)


class CsvSink:
    """The open file and its columns."""

    def __init__(self, path: Path, columns: list[str]):
        self._path, self._columns = path, columns
        self._file = path.open("ab", buffering=0)

    def write(self, row: Row) -> None:
        """Append a line, after widening the table where the row has new figures."""
        cells = as_cells(row)
        new = [name for name in cells if name not in self._columns]
        if new:
            self._widen(new)
        append(self._file, csv_line([cells.get(name, "") for name in self._columns]))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _widen(self, new: Sequence[str]) -> None:
        self._file.close()
        _, records = read_table(self._path)
        self._columns = [*self._columns, *new]
        replace_text(self._path, table_lines(self._columns, [[*record, *("" for _ in new)] for record in records]))
        self._file = self._path.open("ab", buffering=0)


def as_cells(row: Row) -> dict[str, Any]:
    """A row's cells by column; a figure with the name of another column gets a prefix.

    >>> as_cells({"step": 3, "epoch": 0, "split": "val", "metrics": {"loss": 0.5, "step": 1.0}})
    {'step': 3, 'epoch': 0, 'split': 'val', 'loss': 0.5, 'metrics/step': 1.0}
    """
    cells = {name: value for name, value in row.items() if name not in ("metrics", "values")} | row.get("values", {})
    return cells | {f"metrics/{name}" if name in cells else name: value for name, value in row["metrics"].items()}


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """The columns and the whole records of a file; a torn last line is left out."""
    if not path.is_file():
        return [*FIXED], []
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(line for line in file if line.endswith("\n")))
    return (lines[0], lines[1:]) if lines else ([*FIXED], [])


def table_lines(columns: Sequence[str], records: Sequence[Sequence[str]]) -> list[str]:
    """The file's text, line by line."""
    return [csv_line(columns), *(csv_line(record) for record in records)]


def csv_line(cells: Sequence[Any]) -> str:
    """One record, newline included.

    >>> csv_line([1, "a,b", 0.5])
    '1,"a,b",0.5\\n'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
