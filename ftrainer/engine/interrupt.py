"""Signals as a question that the loop asks between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted:
    """Whether a signal came, and which: asked between steps, it answers with a reason or None."""

    number: int | None = None

    def __call__(self) -> str | None:
        return None if self.number is None else f"stopped by {signal.Signals(self.number).name}"

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: remember; a second SIGINT raises KeyboardInterrupt at once."""
        del frame
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt("stopped at once by a second SIGINT; the checkpoints that were saved are whole")
        self.number = number


@contextmanager
def interrupts() -> Iterator[Interrupted]:
    """Within, SIGINT and SIGTERM only set a flag.

    Outside the main thread, where Python delivers no signals, nothing is caught.
    """
    interrupted = Interrupted()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = {number: signal.signal(number, interrupted.note) for number in SIGNALS}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
