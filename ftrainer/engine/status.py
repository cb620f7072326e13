"""What a run's directory says besides metrics: how the run stands, since when, on which machine, what went wrong.

`status.json` is written whole when the run begins and when it ends; `notes.jsonl` grows by a line for each message.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs

from .rundir import replace_text

log = logging.getLogger("ftrainer.run")

STATUS, NOTES = "status.json", "notes.jsonl"
RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"


class Chronicle:
    """Keeps a run's `status.json` up to date from its beginning to its end.

    Args:
        out_dir: the run's directory.
        facts: what is known before it begins, as JSON data: name, digest, planned steps, versions.
        resumed: an earlier attempt goes on, so that its beginning counts.
    """

    def __init__(self, out_dir: Path, facts: Mapping[str, Any], resumed: bool = False):
        self._path = out_dir / STATUS
        before = read_status(out_dir) if resumed else {}
        now = time.time()
        attempts = int(before.get("attempts", 0)) + 1
        self._content = {**facts, "machine": machine(), "pid": os.getpid(), "attempts": attempts,
                         "started": before.get("started", now), "ended": None,
                         "status": RUNNING, "reason": None}  # fmt: skip
        self._reached: tuple[int | None, float | None] = (None, None)

    def __enter__(self) -> Chronicle:
        self._write()
        return self

    def progress(self, step: int, seconds: float) -> None:
        """Remember how far the run is; nothing is written until it ends."""
        self._reached = (step, seconds)

    def over(self, status: str, reason: str) -> None:
        """Remember how the run ended; it is written at the end of the context."""
        self._content |= {"status": status, "reason": reason}

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is not None:
            status = STOPPED if isinstance(error, (KeyboardInterrupt, GeneratorExit)) else FAILED
            self.over(status, f"{type(error).__name__}: {error}")
        self._content["ended"] = time.time()
        try:
            self._write()
        except OSError as failure:  # a full disk, of which there is a warning for each checkpoint too
            log.warning("%s is not written: %s", self._path, failure)

    def _write(self) -> None:
        step, seconds = self._reached
        replace_text(self._path, json.dumps({**self._content, "step": step, "seconds": seconds}, indent=1) + "\n")


def read_status(out_dir: Path) -> dict[str, Any]:
    """The content of a run's `status.json`; empty where there is none that can be read."""
    try:
        content = json.loads((out_dir / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def machine() -> dict[str, Any]:
    """Where a run runs.

    >>> sorted(machine())
    ['cpus', 'host', 'system']
    """
    return {"host": platform.node(), "system": platform.platform(), "cpus": os.cpu_count()}


@attrs.define(eq=False)
class NotesHandler(logging.Handler):
    """Writes a message as a line of JSON: `time`, `level`, `message`, and what the caller gave as `extra["note"]`."""

    path: Path

    def __attrs_pre_init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """Append a line. A disk that is full loses it: messages are never worth a run."""
        note = getattr(record, "note", {})
        content = {"time": record.created, "level": record.levelname.lower(), "message": record.getMessage(), **note}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(content) + "\n")
        except OSError:
            self.handleError(record)


@contextmanager
def noted(out_dir: Path) -> Iterator[None]:
    """Within, what the trainer's loggers say from INFO on goes to the run's `notes.jsonl` too."""
    logger, handler = logging.getLogger("ftrainer"), NotesHandler(out_dir / NOTES)
    level = logger.level
    if not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
