"""Where a run stands, as arithmetic on its tick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ftrainer.components.base import Data
from ftrainer.functional.state import Program


@attrs.frozen
class Clock:
    """Micro-batches to epochs and optimizer steps; an accumulated step never reaches across an epoch's end.

    Attributes:
        n_batches: micro-batches in an epoch.
        accumulate: micro-batches behind one optimizer step; an epoch's last step takes what is left.
        from_tick, from_step, from_epoch: where the run was when its batches became these; the epoch began anew there.

    >>> clock = Clock(n_batches=5, accumulate=2)
    >>> [clock.applies(tick) for tick in range(5)]
    [False, True, False, True, True]
    >>> clock.attempts(5), clock.epoch(5), clock.index(7)
    (3, 1, 2)
    >>> other = Clock(n_batches=2, from_tick=7, from_step=4, from_epoch=1)
    >>> other.attempts(9), other.epoch(9), other.index(9)
    (6, 2, 0)
    """

    n_batches: int
    accumulate: int = 1
    from_tick: int = 0
    from_step: int = 0
    from_epoch: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return -(-self.n_batches // self.accumulate)

    def epoch(self, tick: int) -> int:
        """Epochs finished before this micro-batch."""
        return self.from_epoch + (tick - self.from_tick) // self.n_batches

    def index(self, tick: int) -> int:
        """The micro-batch's place in its epoch."""
        return (tick - self.from_tick) % self.n_batches

    def applies(self, tick: int) -> bool:
        """Whether this micro-batch ends an optimizer step."""
        index = self.index(tick) + 1
        return index % self.accumulate == 0 or index == self.n_batches

    def attempts(self, tick: int) -> int:
        """Optimizer-step attempts that are over once `tick` micro-batches were seen."""
        return self.attempts_by(self.epoch(tick)) + self.index(tick) // self.accumulate

    def attempts_by(self, epoch: int) -> int:
        """Optimizer-step attempts that are over at the end of this many epochs."""
        return self.from_step + (epoch - self.from_epoch) * self.steps_per_epoch

    def epochs_by(self, step: int) -> int:
        """Epochs that are begun by this many attempts.

        >>> Clock(n_batches=5).epochs_by(11)
        3
        """
        return self.from_epoch + -(-(step - self.from_step) // self.steps_per_epoch)

    def place(self, attempt: int) -> tuple[int, range]:
        """The epoch of an attempt, and its micro-batches' places in it, both from 0; attempts count from 1.

        >>> Clock(n_batches=5, accumulate=2).place(6)
        (1, range(4, 5))
        """
        epochs, index = divmod(attempt - 1 - self.from_step, self.steps_per_epoch)
        first = index * self.accumulate
        return self.from_epoch + epochs, range(first, min(first + self.accumulate, self.n_batches))

    def place_text(self, attempt: int) -> str:
        """The same for people.

        >>> Clock(n_batches=5).place_text(7), Clock(n_batches=5, accumulate=2).place_text(2)
        ('epoch 1, batch 1', 'epoch 0, batches 2 to 3')
        """
        epoch, batches = self.place(attempt)
        which = f"batch {batches[0]}" if len(batches) == 1 else f"batches {batches[0]} to {batches[-1]}"
        return f"epoch {epoch}, {which}"


def run_clock(program: Program, data: Data, cursor: Mapping[str, Any]) -> Clock:
    """The clock of a run on this data.

    Args:
        program: its trainer says how many micro-batches a step takes.
        data: says how many there are in an epoch.
        cursor: of the checkpoint that the run goes on from, empty at step zero. Where it counted other batches, the
            run stays at its step and its epoch begins anew.
    """
    plain = Clock(data.n_batches("train"), program.trainer.grad_accum_steps)
    if "clock" not in cursor:
        return plain
    before = Clock(**cursor["clock"])
    if (before.n_batches, before.accumulate) == (plain.n_batches, plain.accumulate):
        return before
    return attrs.evolve(plain, from_tick=cursor["tick"], from_step=cursor["step"], from_epoch=cursor["epoch"])
