"""Callbacks at work: pure reactions to events, their memories, and the actions they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ftrainer.components.base import Callback
from ftrainer.functional.events import Action, Event, Save


class CallbackError(RuntimeError):
    """A callback raised; the message names it and the event."""


class Reactions:
    """The callbacks of a run with what they remember; `memories` is JSON data and travels in the checkpoint."""

    def __init__(self, callbacks: Sequence[Callback], memories: Sequence[Any] | None = None):
        self._callbacks = tuple(callbacks)
        self.memories = [c.init() for c in self._callbacks] if memories is None else list(memories)

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def memories_of(self, member: int | None) -> list[Any]:
        """What a checkpoint of the run keeps."""
        del member
        return list(self.memories)

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
                raise CallbackError(
                    f"callbacks[{index}] ({name}) failed on {moment} at step {event.step}: {error}"
                ) from error
            actions += wanted
        return actions


class MemberReactions:
    """The callbacks of a stack of runs.

    What concerns the whole run they meet once; a member's figures they meet with a memory of that member's own. What
    they ask to be saved then is that member, in a directory of its own.
    """

    def __init__(self, callbacks: Sequence[Callback], n_members: int, memories: Mapping[str, Any] | None = None):
        given = memories or {"all": None, "members": [None] * n_members}
        self._all = Reactions(callbacks, given["all"])
        self._members = [Reactions(callbacks, memory) for memory in given["members"]]

    @property
    def memories(self) -> dict[str, Any]:
        """JSON data that travels in the checkpoint."""
        return {"all": self._all.memories, "members": [member.memories for member in self._members]}

    def memories_of(self, member: int | None) -> Any:
        """What a checkpoint of the whole run keeps, or one of a member that goes on alone."""
        return self.memories if member is None else list(self._members[member].memories)

    def __call__(self, event: Event) -> list[Action]:
        """As `Reactions`."""
        if event.member is None:
            return self._all(event)
        return [in_own_directory(action, event.member) for action in self._members[event.member](event)]


def in_own_directory(action: Action, member: int) -> Action:
    """A save that is asked for on behalf of one member, beside the others'; any other action as it is.

    >>> in_own_directory(Save(directory="checkpoints", name="best-val-loss"), 3).directory
    'checkpoints/member-3'
    """
    if not isinstance(action, Save):
        return action
    return attrs.evolve(action, directory=f"{action.directory}/member-{member}")
