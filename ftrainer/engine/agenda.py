"""What is due when: the steps at which a run logs, validates, lets its evaluators judge, and ends."""

from __future__ import annotations

import attrs

from ftrainer.components.trainer import DefaultTrainer

from .position import Clock


@attrs.frozen(kw_only=True)
class Agenda:
    """The loop's settings as questions about a step.

    Attributes:
        trainer: the settings.
        clock: which says when epochs end.
        total: steps in the whole run.
    """

    trainer: DefaultTrainer
    clock: Clock
    total: int

    def logs(self, step: int) -> bool:
        """Whether training's figures are told after this step."""
        return step % self.trainer.log_every_n_steps == 0 or step == self.total

    def validates(self, step: int, epoch: int, epoch_ended: bool) -> bool:
        """Whether validation is due after this step; `epoch` counts the epochs that are over."""
        by_step, by_epoch = self.trainer.val_every_n_steps, self.trainer.val_every_n_epochs
        if by_step is not None and step % by_step == 0:
            return True
        return epoch_ended and by_epoch is not None and epoch % by_epoch == 0

    def evaluates(self, epoch: int, epoch_ended: bool) -> bool:
        """Whether the evaluators are due after an epoch's last step."""
        every = self.trainer.eval_every_n_epochs
        return epoch_ended and every is not None and epoch % every == 0

    def out_of_time(self, elapsed: float) -> str | None:
        """Why the clock ends the run after so many seconds, if it does."""
        limit = self.trainer.max_time
        return f"{limit:g} minutes are over" if limit is not None and elapsed >= 60 * limit else None

    def next_due(self, step: int, epoch: int) -> int:
        """The next step after which there is more to do than to count it, where nobody is told of each."""
        periods = (self.trainer.log_every_n_steps, self.trainer.val_every_n_steps or self.total)
        return min(self.clock.attempts_by(epoch + 1), self.total, *(step // n * n + n for n in periods))
