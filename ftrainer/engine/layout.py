"""How the members of a stack share calls: all in one, in chunks, or one after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from ftrainer.components.base import Data
from ftrainer.functional.state import TrainState


@attrs.frozen(kw_only=True)
class Layout:
    """Which members one call moves.

    Attributes:
        strategy: `vmap` moves up to `chunk` members with one call, `loop` one.
        chunk: members in a call.
        why: what decided, as JSON data: seconds of the trial, bytes of the estimate.
    """

    strategy: Literal["vmap", "loop"] = "vmap"
    chunk: int
    why: Mapping[str, Any] = attrs.field(factory=dict)

    def lanes(self, n_members: int) -> list[int | slice]:
        """Places on the axis of members, one for each call.

        >>> Layout(chunk=2).lanes(3), Layout(strategy="loop", chunk=1).lanes(2)
        ([slice(0, 2, None), slice(2, 3, None)], [0, 1])
        """
        if self.strategy == "loop":
            return list(range(n_members))
        return [slice(at, min(at + self.chunk, n_members)) for at in range(0, n_members, self.chunk)]


def decide(state: TrainState, data: Data) -> Layout:
    """All members in one call."""
    return Layout(chunk=len(state.program.members))
