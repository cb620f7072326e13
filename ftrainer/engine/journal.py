"""Rows of metrics on their way to the loggers."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from ftrainer.components.base import Logger, LogSink, RunInfo

log = logging.getLogger("ftrainer.run")


class Journal:
    """The open loggers of a run. One that fails is named, closed and left out; the run goes on."""

    def __init__(self, loggers: Sequence[Logger], info: RunInfo):
        self._loggers, self._info = loggers, info
        self._sinks: dict[str, LogSink] = {}
        self.failed: dict[str, str] = {}
        self._start = time.monotonic()

    def __enter__(self) -> Journal:
        for index, logger in enumerate(self._loggers):
            name = f"loggers[{index}] ({type(logger).__name__})"
            try:
                self._sinks[name] = logger.open(self._info)
            except Exception as error:
                self._fail(name, error)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for name, sink in list(self._sinks.items()):
            try:
                sink.close()
            except Exception as failure:
                self._fail(name, failure)

    def write(self, step: int, epoch: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Send one row to every logger."""
        row = {"step": step, "epoch": epoch, "split": split, "metrics": dict(metrics), "time": self.elapsed}
        for name, sink in list(self._sinks.items()):
            try:
                sink.write(row)
            except Exception as error:
                self._fail(name, error)

    @property
    def elapsed(self) -> float:
        """Seconds since the journal was made."""
        return time.monotonic() - self._start

    def _fail(self, name: str, error: Exception) -> None:
        self._sinks.pop(name, None)
        self.failed[name] = str(error)
        log.warning("%s failed and is left out from here on: %s", name, error)
