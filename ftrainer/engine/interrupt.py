"""Signals as a question that the loop asks between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts() -> Iterator[Callable[[], str | None]]:
    """Within, SIGINT and SIGTERM only set a flag; the function given tells which came, or None.

    A second SIGINT raises KeyboardInterrupt at once. Outside the main thread, where Python delivers no signals,
    nothing is caught.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(number)

    def reason() -> str | None:
        return f"stopped by {signal.Signals(came[0]).name}" if came else None

    if threading.current_thread() is not threading.main_thread():
        yield reason
        return
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield reason
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
