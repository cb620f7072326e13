"""Where a run stands, as arithmetic on its tick."""

from __future__ import annotations

import attrs


@attrs.frozen
class Clock:
    """Micro-batches to epochs and optimizer steps; an accumulated step never reaches across an epoch's end.

    Attributes:
        n_batches: micro-batches in an epoch.
        accumulate: micro-batches behind one optimizer step; an epoch's last step takes what is left.

    >>> clock = Clock(n_batches=5, accumulate=2)
    >>> [clock.applies(tick) for tick in range(5)]
    [False, True, False, True, True]
    >>> clock.attempts(5), clock.epoch(5), clock.index(7)
    (3, 1, 2)
    """

    n_batches: int
    accumulate: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return -(-self.n_batches // self.accumulate)

    def epoch(self, tick: int) -> int:
        """Epochs finished before this micro-batch."""
        return tick // self.n_batches

    def index(self, tick: int) -> int:
        """The micro-batch's place in its epoch."""
        return tick % self.n_batches

    def applies(self, tick: int) -> bool:
        """Whether this micro-batch ends an optimizer step."""
        index = self.index(tick) + 1
        return index % self.accumulate == 0 or index == self.n_batches

    def attempts(self, tick: int) -> int:
        """Optimizer-step attempts that are over once `tick` micro-batches were seen."""
        return self.epoch(tick) * self.steps_per_epoch + self.index(tick) // self.accumulate
