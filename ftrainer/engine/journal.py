"""Rows of metrics on their way to the loggers."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ftrainer.components.base import Logger, LogSink, RunInfo

from .roster import Figures

log = logging.getLogger("ftrainer.run")

PATIENCE = 0.5
"""Seconds that a row of training waits for others."""


class Journal:
    """The open loggers of a run. One that fails is left out; the run goes on, and says at its end what was missed."""

    def __init__(self, loggers: Sequence[Logger], info: RunInfo):
        self._loggers, self._info = loggers, info
        self._sinks: dict[str, tuple[Logger, LogSink]] = {}
        self.failed: dict[str, str] = {}
        self._n_entries = 0
        self._missed_from: dict[str, int] = {}
        self._waiting: list[tuple[dict[str, Any], Figures]] = []
        self._send_at = 0.0
        self._start = time.monotonic()

    def __enter__(self) -> Journal:
        for index, logger in enumerate(self._loggers):
            name = f"loggers[{index}] ({type(logger).__name__})"
            try:
                self._sinks[name] = (logger, logger.open(self._info))
            except Exception as error:
                self._fail(name, error)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.flush()
        for name, (_, sink) in list(self._sinks.items()):
            try:
                sink.close()
            except Exception as failure:
                self._fail(name, failure)
        for name, reason in self.failed.items():
            missed = self._n_entries - self._missed_from[name]
            log.warning("%s failed and lacks %d of %d entries: %s", name, missed, self._n_entries, reason)

    def write(self, step: int, epoch: int, split: str, figures: Figures) -> None:
        """Send every logger a row for each member, or one with the means to those that say `per_member = False`.

        Rows of training wait for one another: between two steps each of them finds the loggers' code out of the
        processor's caches, and sent together they find it there.
        """
        self._waiting.append(({"step": step, "epoch": epoch, "split": split, "time": self.elapsed}, figures))
        if split != "train":
            self.flush()

    def flush_old(self) -> None:
        """Send the rows that wait if the first of them has waited long enough."""
        if self._waiting and self.elapsed >= self._send_at:
            self.flush()

    def flush(self) -> None:
        """Send the rows that wait; whoever saves the run says so first, so that no checkpoint is ahead of its rows."""
        waiting, self._waiting = self._waiting, []
        for moment, figures in waiting:
            self._send(moment, figures)
        self._send_at = self.elapsed + PATIENCE

    def _send(self, moment: dict[str, Any], figures: Figures) -> None:
        rows = [{**moment, **self._signature(who), "metrics": dict(metrics)} for who, metrics in figures.items()]
        self._n_entries += 1
        means = rows if len(rows) < 2 else [{**moment, "member": f"mean of {len(rows)}", "metrics": mean_of(figures)}]
        for name, (logger, sink) in list(self._sinks.items()):
            try:
                for row in rows if getattr(logger, "per_member", True) else means:
                    sink.write(row)
            except Exception as error:
                self._fail(name, error, missed_from=self._n_entries - 1)

    def ends(self, step: int, epoch: int, who: int, reason: str) -> None:
        """Tell the loggers of members that one of them ended before the run."""
        self.flush()
        row = {"step": step, "epoch": epoch, "split": "train", "time": self.elapsed, **self._signature(who)}
        for name, (logger, sink) in list(self._sinks.items()):
            try:
                if getattr(logger, "per_member", True):
                    sink.write({**row, "ended": reason, "metrics": {}})
            except Exception as error:
                self._fail(name, error)

    def _signature(self, who: int | None) -> dict[str, Any]:
        return {} if who is None else {"member": who, "values": dict(self._info.members[who])}

    @property
    def elapsed(self) -> float:
        """Seconds since the journal was made."""
        return time.monotonic() - self._start

    def _fail(self, name: str, error: Exception, missed_from: int | None = None) -> None:
        self._sinks.pop(name, None)
        self.failed[name] = str(error)
        self._missed_from[name] = self._n_entries if missed_from is None else missed_from
        log.warning("%s failed and is left out from here on: %s", name, error)


def mean_of(figures: Figures) -> dict[str, float]:
    """Each figure's mean over the members that have it and whose value is finite; nan where none has.

    >>> mean_of({0: {"loss": 1.0}, 1: {"loss": 3.0}, 2: {"loss": float("nan")}})
    {'loss': 2.0}
    """
    columns: dict[str, list[float]] = {}
    for metrics in figures.values():
        for name, value in metrics.items():
            columns.setdefault(name, []).extend([value] if math.isfinite(value) else [])
    return {name: math.fsum(values) / len(values) if values else math.nan for name, values in columns.items()}
