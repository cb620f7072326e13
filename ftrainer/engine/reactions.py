"""Callbacks at work: pure reactions to events, their memories, and the actions they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftrainer.components.base import Callback
from ftrainer.functional.events import Action, Event


class CallbackError(RuntimeError):
    """A callback raised; the message names it and the event."""


class Reactions:
    """The callbacks of a run with what they remember; `memories` is JSON data and travels in the checkpoint."""

    def __init__(self, callbacks: Sequence[Callback], memories: Sequence[Any] | None = None):
        self._callbacks = tuple(callbacks)
        self.memories = [c.init() for c in self._callbacks] if memories is None else list(memories)

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def __call__(self, event: Event) -> list[Action]:
        """Tell every callback, in order, and collect what they want done.

        Raises:
            CallbackError: one of them raised.
        """
        actions: list[Action] = []
        for index, callback in enumerate(self._callbacks):
            try:
                self.memories[index], wanted = callback.on_event(self.memories[index], event)
            except Exception as error:
                name, moment = type(callback).__name__, type(event).__name__
                raise CallbackError(f"callbacks[{index}] ({name}) failed on {moment} at step {event.step}: {error}") from error
            actions += wanted
        return actions
