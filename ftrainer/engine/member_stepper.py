"""The stepper of a stack of runs: lanes of members, each lane moved by one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.functional import pytree
from ftrainer.functional.replicate import ACTIVE, Where, resting, share, together
from ftrainer.functional.state import TrainState

from .layout import Layout
from .stepper import Stepper, accumulate, evaluate, update

ALONE: Mapping[Any, Any] = MappingProxyType(
    {update: resting(update), accumulate: resting(accumulate), evaluate: evaluate}
)
TOGETHER: Mapping[Any, Any] = MappingProxyType({fn: together(moving) for fn, moving in ALONE.items()})
"""What stands for the functions that a loop calls, where they move one member, and where several."""


class MemberStepper:
    """Owns the leaves of a stack and moves them, lane by lane.

    Every lane works on views of the stack's tensors and writes its results there, so `state` always is the present
    one. A lane whose members have all ended is passed over.

    Args:
        state: where to begin. Its tensors are overwritten as training goes on.
        backend: as for `jit`.
        layout: how members are put into lanes.
    """

    def __init__(self, state: TrainState, backend: str, layout: Layout):
        self.state, self.layout = state, layout
        self._active: Tensor = state.slots[ACTIVE]
        self._places = dict(zip(pytree.paths(state), pytree.leaves(state), strict=True))
        self._alone = layout.strategy == "loop"
        self._lanes = [Lane(state, where, backend) for where in layout.lanes(len(state.program.members))]
        self._running = self._still_running()

    @property
    def device(self) -> torch.device:
        """Where the state lives."""
        return self.state.step.device

    @property
    def traces(self) -> int:
        """How often a new signature was traced."""
        return self._lanes[0].stepper.traces

    def __call__(self, fn: Callable[..., Any], batch: Any) -> Any:
        """Run `update`, `accumulate` or `evaluate`; results have a leading axis of members.

        What is no tensor in them is the same for all. Those of members that have ended mean nothing.
        """
        results = [lane(fn, batch, running) for lane, running in zip(self._lanes, self._running, strict=True)]
        if len(results) == 1 and not self._alone:
            return results[0]
        join = torch.stack if self._alone else torch.cat
        return pytree.map(lambda *xs: join(xs) if isinstance(xs[0], Tensor) else xs[0], *results)

    def set(self, path: str, value: float, member: int | None = None) -> None:
        """Overwrite one 0-d leaf, named as a checkpoint names it, of one member or of all that are still training."""
        leaf = self._places[path]
        if member is None:
            leaf.masked_fill_(self._active, value)
        else:
            leaf[member] = value

    def cursor(self) -> dict[str, Any]:
        """What a resumed run needs to know to move on alike: the layout, which decides the order of roundings."""
        return {"layout": attrs.asdict(self.layout)}

    def rest(self, member: int) -> None:
        """Let a member stay as it is from here on."""
        self._active[member] = False
        self._running = self._still_running()

    def _still_running(self) -> list[bool]:
        active = self._active.cpu()
        return [bool(active[lane.where].any()) for lane in self._lanes]


class Lane:
    """Members that one call moves."""

    def __init__(self, states: TrainState, where: Where, backend: str):
        self.where = where
        views = pytree.map(lambda leaf: leaf[where], states)
        self.stepper = Stepper(views, backend, ALONE if isinstance(where, int) else TOGETHER)
        self._last: dict[Any, Any] = {}

    def __call__(self, fn: Callable[..., Any], batch: Any, running: bool) -> Any:
        """Run a function on this lane's share of a batch; what it gave last, where nobody here is training."""
        if running or fn not in self._last:
            self._last[fn] = self.stepper(fn, share(batch, self.where))
        return self._last[fn]
