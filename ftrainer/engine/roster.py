"""Whom a loop trains: one plain run, or the members of a stack, each with its figures, bad steps and end of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ftrainer.components.base import Metric
from ftrainer.functional import pytree
from ftrainer.functional.replicate import member
from ftrainer.functional.state import Program, TrainState

from .evaluation import summarise

log = logging.getLogger("ftrainer.run")

Figures = Mapping[int | None, Mapping[str, float]]
"""Plain numbers by member and name; a plain run is the member None."""
EVERY_MEMBER_ENDED = "every member has ended"


class Roster:
    """Who is still training, and why the others are not.

    Args:
        program: of a plain run or of a stack.
        cursor: what `cursor()` said when the run was saved; None for a run that begins.
    """

    def __init__(self, program: Program, cursor: Mapping[str, Any] | None = None):
        self.is_stack = bool(program.members)
        self.ids: tuple[int | None, ...] = tuple(range(len(program.members))) if self.is_stack else (None,)
        self.max_bad_steps = program.trainer.max_bad_steps
        saved = cursor or {"bad": [0] * len(self.ids), "ended": []}
        self._bad: list[int] = list(saved["bad"])
        self._ended: dict[int, str] = {int(who): why for who, why in saved["ended"]}
        self.reason: str | None = None
        self.active: tuple[int | None, ...] = ()
        self.settle()

    def cursor(self) -> dict[str, Any]:
        """What a resumed run needs to know, as JSON data."""
        return {"bad": list(self._bad), "ended": [[who, why] for who, why in self._ended.items()]}

    def settle(self) -> None:
        """Forget those that have ended: until the step is over they are judged with the others, as they are alone."""
        self.active = tuple(who for who in self.ids if who not in self._ended)

    @property
    def ended(self) -> Mapping[int, str]:
        """Why members ended before the run did."""
        return self._ended

    def end(self, who: int | None, reason: str) -> bool:
        """End one member, or with None the whole run; whether it had not ended before."""
        if who is None:
            self.reason, fresh = self.reason or reason, self.reason is None
            return fresh
        if who in self._ended:
            return False
        self._ended[who] = reason
        log.info("member %d ends: %s", who, reason)
        self.reason = self.reason or (EVERY_MEMBER_ENDED if len(self._ended) == len(self.ids) else None)
        return True

    def figures(self, metrics: Mapping[str, Tensor]) -> Figures:
        """Metrics on the host, in one transfer, of those that are still training."""
        if not metrics:
            return {who: {} for who in self.active}
        table = torch.stack([value.detach().to(torch.float64).reshape(-1) for value in metrics.values()])
        columns = zip(self.ids, table.T.tolist(), strict=True)
        return {who: dict(zip(metrics, column, strict=True)) for who, column in columns if who in self.active}

    def over_split(self, results: Sequence[dict[str, Any]], metrics: Sequence[Metric]) -> Figures:
        """A split's figures from what `evaluate` gave for each of its batches."""
        return {who: summarise([part(result, who) for result in results], metrics) for who in self.active}

    def states(self, state: TrainState) -> Iterator[tuple[int | None, TrainState]]:
        """The plain states of those that are still training."""
        return ((who, self.state_of(state, who)) for who in self.active)

    def state_of(self, state: TrainState, who: int | None) -> TrainState:
        """One member's plain state; the state itself for None."""
        return state if who is None else member(state, who)

    def judge(self, steps: Sequence[int], skipped: Tensor) -> Iterator[tuple[int | None, str]]:
        """Count bad steps in a row; who has had too many of them, and what to say.

        Args:
            steps: (S,) numbers of attempts.
            skipped: (S,) or (S, M), above zero where a step was not finite.
        """
        columns = skipped.reshape(len(steps), -1).T.tolist()
        for place, (who, column) in enumerate(zip(self.ids, columns, strict=True)):
            if who in self.active and (verdict := self._count(place, who, steps, column)) is not None:
                yield who, verdict

    def _count(self, place: int, who: int | None, steps: Sequence[int], skipped: Sequence[float]) -> str | None:
        for step, bad in zip(steps, skipped, strict=True):
            self._bad[place] = self._bad[place] + 1 if bad else 0
            if bad:
                name = "" if who is None else f" of member {who}"
                note = {"kind": "bad step", "step": step, "member": who}
                log.warning(
                    "step %d%s was skipped: its loss or gradients were not finite", step, name, extra={"note": note}
                )
            if self._bad[place] >= self.max_bad_steps:
                return f"{self._bad[place]} steps in a row were not finite, the last at step {step}"
        return None


def part(tree: Any, who: int | None) -> Any:
    """One member's share of what all of them gave; the whole for None."""
    return tree if who is None else pytree.map(lambda leaf: leaf[who] if isinstance(leaf, Tensor) else leaf, tree)
