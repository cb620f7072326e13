"""Processes that begin with everything imported, because they are copies of this one; and what they are doing."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ftrainer.engine import stepper
from ftrainer.run import main

MOMENTS = ("starting", "between steps", "accumulating", "updating", "validating")


class Forked:
    """The command line in a copy of this process; it is waited for and killed as a `subprocess.Popen`.

    Args:
        arguments: of `ftrainer`.
        log: the file that the process's words are added to.
        prepare: called in the process before anything else.
    """

    def __init__(self, arguments: list[str], log: Path, prepare: Callable[[], None] | None = None):
        self.returncode: int | None = None
        self._moment = mmap.mmap(-1, 1)
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _live(arguments, log, prepare, self._moment)

    @property
    def moment(self) -> str:
        """What the process is doing, or was doing when it ended."""
        return MOMENTS[self._moment[0]]

    def poll(self) -> int | None:
        """The exit code, minus the signal's number after one; None while the process lives."""
        return self._reap(os.WNOHANG)

    def wait(self, seconds: float) -> int:
        """The exit code, once the process is over.

        Raises:
            TimeoutError: it is not over in time.
        """
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise TimeoutError(f"process {self.pid} goes on after {seconds:g} s")
            time.sleep(0.002)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process is known to be over."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """The end without a word."""
        self.send_signal(signal.SIGKILL)

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def _live(arguments: list[str], log: Path, prepare: Callable[[], None] | None, moment: mmap.mmap) -> None:
    """All that the copy does; it never returns."""
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if prepare is not None:
            prepare()
        _tell(moment)
        code = main.main(arguments, prog_name="ftrainer", standalone_mode=False) or 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except (KeyboardInterrupt, click.exceptions.Abort):
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _tell(moment: mmap.mmap) -> None:
    """From here on this process notes in shared memory what its stepper is at."""
    plain = stepper.Stepper.__call__
    numbers = {stepper.accumulate: 2, stepper.update: 3, stepper.evaluate: 4}

    def noted(self: stepper.Stepper, fn: Callable[..., Any], batch: Any) -> Any:
        moment[0] = numbers[fn]
        result = plain(self, fn, batch)
        moment[0] = 1 if fn is stepper.update else moment[0]
        return result

    stepper.Stepper.__call__ = noted  # type: ignore[method-assign]
