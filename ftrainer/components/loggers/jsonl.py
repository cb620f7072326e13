"""Rows as lines of JSON."""

from __future__ import annotations

from io import RawIOBase

import attrs

from ftrainer.components.base import LogSink, RunInfo
from registry.spec import component

from .rows import Row, append, drop_past, to_line


@component
class JsonLines:
    """One line for each row, written at once (`log.jsonl`).

    A figure that is not finite is written as the text `"NaN"`, `"Infinity"` or `"-Infinity"`, which JSON allows and
    `float` reads. A run that is resumed drops the rows past its checkpoint first, so that none is missing or twice.

    Attributes:
        path: the file, under the run's directory unless absolute.
    """

    path: str = "metrics.jsonl"

    def open(self, info: RunInfo) -> LogSink:
        """Open the file for the rows after `info.start_step`."""
        path = info.out_dir / self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        drop_past(path, info.start_step)
        return JsonLinesSink(path.open("ab", buffering=0))


@attrs.frozen
class JsonLinesSink:
    """The open file."""

    file: RawIOBase

    def write(self, row: Row) -> None:
        """Append a line and hand it to the system, so that a killed process loses none."""
        append(self.file, to_line(row))

    def close(self) -> None:
        """Close the file."""
        self.file.close()
