"""Whom a loop trains: one plain run, or the members of a stack, each with its figures, bad steps and end of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ftrainer.components.base import Metric
from ftrainer.functional import pytree
from ftrainer.functional.replicate import member
from ftrainer.functional.state import Program, TrainState

from .evaluation import summarise
from .status import FAILED, FINISHED, STOPPED

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
        none = [0] * len(self.ids)
        saved = {"bad": none, "skipped": none, "last": none, "ended": [], **(cursor or {})}
        self._bad: list[int] = list(saved["bad"])
        self._skipped: list[int] = list(saved["skipped"])
        self._last: list[int] = list(saved["last"])
        self._ended: dict[int, str] = {int(who): why for who, why in saved["ended"]}
        self.reason: str | None = None
        self.active: tuple[int | None, ...] = ()
        self.settle()

    def cursor(self, who: int | None = None) -> dict[str, Any]:
        """What a resumed run needs to know, of one member or, with None, of all, as JSON data."""
        here = slice(None) if who is None else slice(who, who + 1)
        counts = {"bad": self._bad[here], "skipped": self._skipped[here], "last": self._last[here]}
        return {**counts, "ended": [[other, why] for other, why in self._ended.items()] if who is None else []}

    def settle(self) -> list[int]:
        """Let those go that have ended, and say who: until the step is over they are as the others."""
        if len(self.active) + len(self._ended) == len(self.ids):
            return []
        gone = [who for who in self.active if who in self._ended]
        self.active = tuple(who for who in self.ids if who not in self._ended)
        return gone

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

    @property
    def failure(self) -> str | None:
        """Why the run is a failure: all that it trains had too many bad steps in a row; None where one had not."""
        if any(n < self.max_bad_steps for n in self._bad):
            return None
        most = f"every member had {self.max_bad_steps} steps in a row that were not finite"
        return most if self.is_stack else self._verdict(0)

    def ending(self, is_cut: bool, unsaved: str | None = None) -> dict[str, Any]:
        """Status and reason of a run that ends here, as its last event says them.

        Args:
            is_cut: it is ended from outside.
            unsaved: why its last state could not be saved.
        """
        if self.failure or unsaved:
            return {"status": FAILED, "reason": self.failure or f"its end is not saved: {unsaved}"}
        return {"status": STOPPED if is_cut else FINISHED, "reason": self.reason or FINISHED}

    def figures(self, metrics: Mapping[str, Tensor]) -> Figures:
        """Metrics on the host, in one transfer, of those that are still training."""
        if not metrics:
            return {who: {} for who in self.active}
        columns = zip(self.ids, zip(*fetched(list(metrics.values())), strict=True), self._skipped, strict=True)
        return {
            who: dict(zip(metrics, column, strict=True)) | ({"skipped": skipped} if skipped else {})
            for who, column, skipped in columns
            if who in self.active
        }

    def over_split(
        self, results: Sequence[dict[str, Any]], metrics: Sequence[Metric], members: Sequence[int | None]
    ) -> Figures:
        """A split's figures from what `evaluate` gave for each of its batches."""
        return {who: summarise([part(result, who) for result in results], metrics) for who in members}

    def state_of(self, state: TrainState, who: int | None) -> TrainState:
        """One member's plain state; the state itself for None."""
        return state if who is None else member(state, who)

    def judge(
        self, steps: Sequence[int], skipped: Sequence[Tensor], place_of: Callable[[int], str]
    ) -> Iterator[tuple[int | None, str]]:
        """Count bad steps; who has had too many of them in a row, and what to say.

        Args:
            steps: (S,) numbers of attempts.
            skipped: (S,) flags, 0-d or (M,), above zero where a step was not finite.
            place_of: where an attempt's batches stand, for people.
        """
        columns = zip(*fetched(skipped), strict=True)
        for place, (who, column) in enumerate(zip(self.ids, columns, strict=True)):
            if who in self.active and (verdict := self._count(place, who, steps, column, place_of)) is not None:
                yield who, verdict

    def sum_up(self) -> None:
        """Say how many steps were skipped in all, if any were."""
        for place, who in enumerate(self.ids):
            if n := self._skipped[place]:
                told = (
                    f"{n} step{'s were' if n > 1 else ' was'} skipped{named(who)}, the last at step {self._last[place]}"
                )
                log.warning("%s; `ftrainer replay RUN --step %d` shows where it went wrong", told, self._last[place])

    def _count(
        self,
        place: int,
        who: int | None,
        steps: Sequence[int],
        skipped: Sequence[float],
        place_of: Callable[[int], str],
    ) -> str | None:
        if not any(skipped):
            self._bad[place] = 0
            return None
        for step, bad in zip(steps, skipped, strict=True):
            self._bad[place] = self._bad[place] + 1 if bad else 0
            if bad:
                self._skipped[place], self._last[place] = self._skipped[place] + 1, step
                note = {"kind": "bad step", "step": step, "member": who}
                message = "step %d%s was skipped: its loss or gradients were not finite (%s)"
                log.warning(message, step, named(who), place_of(step), extra={"note": note})
            if self._bad[place] >= self.max_bad_steps:
                return self._verdict(place)
        return None

    def _verdict(self, place: int) -> str:
        return f"{self._bad[place]} steps in a row were not finite, the last at step {self._last[place]}"


def fetched(values: Sequence[Tensor]) -> list[Sequence[float]]:
    """0-d tensors or vectors of one length as numbers on the host, each a sequence; from a device in one transfer."""
    if all(value.device.type == "cpu" for value in values):
        return [(value.item(),) if value.dim() == 0 else value.tolist() for value in values]
    return torch.stack([value.detach().to(torch.float64).reshape(-1) for value in values]).tolist()


def named(who: int | None) -> str:
    """A member's name behind a noun; nothing for a plain run."""
    return "" if who is None else f" of member {who}"


def part(tree: Any, who: int | None) -> Any:
    """One member's share of what all of them gave; the whole for None."""
    return tree if who is None else pytree.map(lambda leaf: leaf[who] if isinstance(leaf, Tensor) else leaf, tree)


def prefixed(figures: Figures, evaluators: Mapping[str, Any], name: str) -> Figures:
    """An evaluator's figures as plain numbers, under its name where it is not the only one."""
    prefix = "" if len(evaluators) == 1 else f"{name}/"
    return {who: {prefix + key: float(value) for key, value in own.items()} for who, own in figures.items()}
