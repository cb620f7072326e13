"""How a run is, from what it left behind."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from ftrainer.engine.manifest import SealError, unsealed
from ftrainer.engine.rundir import CHECKPOINTS, LOCK
from ftrainer.engine.status import FAILED, FINISHED, RUNNING, STOPPED, read_status

SHARES = "shares"
"""Where a sweep keeps the runs that it is made of."""
SILENT = "ended without a word: killed, or the machine went down"
_FLOCK = "hhqqi4x"
"""Linux's `struct flock`: type, whence, start, length, process."""


@attrs.frozen(kw_only=True)
class Standing:
    """A run's status, `running`, `finished`, `stopped` or `failed`, why, and how far it came, where that is known."""

    status: str
    reason: str | None = None
    step: int | None = None
    seconds: float | None = None


def standing(path: Path, content: Mapping[str, Any], total_steps: int | None) -> Standing:
    """How a run is.

    A run that holds its lock is running. One that does not, although `status.json` says so, was killed; its last
    checkpoint tells whether it had done all it had to do.

    Args:
        path: the run's directory.
        content: of its `status.json`; empty where there is none.
        total_steps: the steps that were planned.
    """
    if is_held(path, content):
        return Standing(status=RUNNING)
    if shares := [] if content else [read_status(place) for place in sorted((path / SHARES).glob("*"))]:
        return of_shares(shares)
    said = content.get("status")
    if said in (FINISHED, STOPPED, FAILED):
        reason, step, seconds = (content.get(name) for name in ("reason", "step", "seconds"))
        return Standing(status=said, reason=reason, step=step, seconds=seconds)
    cursor = last_cursor(path)
    step, over = cursor.get("step"), cursor.get("over")
    reached = isinstance(step, int) and total_steps is not None and step >= total_steps
    if reached or over:
        return Standing(status=FINISHED, reason=over or FINISHED, step=step, seconds=cursor.get("elapsed"))
    if said == RUNNING:
        return Standing(status=FAILED, reason=SILENT, step=step, seconds=cursor.get("elapsed"))
    return Standing(status=STOPPED, step=step, seconds=cursor.get("elapsed"))


def of_shares(shares: Sequence[Mapping[str, Any]]) -> Standing:
    """How a sweep is that nobody works on any more: as the worst of its shares.

    >>> of_shares([{"status": "finished", "seconds": 2.0}, {"status": "stopped", "reason": "SIGTERM", "seconds": 1.0}])
    Standing(status='stopped', reason='SIGTERM', step=None, seconds=3.0)
    """
    rank = {FINISHED: 0, STOPPED: 1, FAILED: 2}
    worst = max(shares, key=lambda share: rank.get(share.get("status", STOPPED), rank[STOPPED]))
    status = worst.get("status") if worst.get("status") in rank else STOPPED
    seconds = sum(share.get("seconds") or 0.0 for share in shares)
    return Standing(status=str(status), reason=worst.get("reason"), seconds=seconds)


def is_held(path: Path, content: Mapping[str, Any]) -> bool:
    """Whether a process is at work on a run. It is asked without taking the lock even for a moment.

    A process that closes a file gives up its own locks on it, so that a run of this very process is not asked about.
    """
    pid = content.get("pid")
    if content.get("status") == RUNNING and pid == os.getpid():
        return True
    if not sys.platform.startswith("linux"):
        return content.get("status") == RUNNING and isinstance(pid, int) and is_alive(pid)
    try:
        with (path / LOCK).open("rb") as lock:
            answer = fcntl.fcntl(lock, fcntl.F_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError:
        return False
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


def is_alive(pid: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def last_cursor(path: Path) -> Mapping[str, Any]:
    """Where the newest checkpoint in a run's own folder left off; empty where there is none that can be read."""
    found: list[tuple[float, Mapping[str, Any]]] = []
    for place in (path / CHECKPOINTS).glob("*/manifest.json"):
        try:
            manifest = unsealed(place.read_bytes())
            found.append((float(manifest["written_at"]), dict(manifest["cursor"])))
        except (OSError, SealError, KeyError, TypeError, ValueError):
            continue
    return max(found, key=lambda pair: pair[0], default=(0.0, {}))[1]
