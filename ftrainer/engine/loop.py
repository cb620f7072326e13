"""The outer loop: one state threaded through one step, batch after batch, and told as events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.components.base import Batch, Data, RunInfo
from ftrainer.components.data.adapt import as_data
from ftrainer.functional import pytree
from ftrainer.functional.events import (
    Action,
    EpochEnd,
    Event,
    Log,
    Logged,
    Save,
    Saved,
    StepEnd,
    Stop,
    Stopping,
    Validate,
    Validated,
)
from ftrainer.functional.state import TrainState

from .accelerator import numerics, to_device
from .crew import data_of, reactions_of, stepper_of
from .journal import Journal
from .position import Clock
from .resume import Beginning
from .roster import Figures, Roster
from .saving import Saver
from .stepper import accumulate, evaluate, update

log = logging.getLogger("ftrainer.run")


def fit(state: TrainState, data: Any, *, donate: bool = False) -> TrainState:
    """Train to the end that the program's `trainer` names.

    Args:
        state: where to begin, from `build` or from an earlier `fit`. It stays valid unless it is donated.
        data: what `build` gave, a torch `DataLoader`, or a list of batches.
        donate: hand the state over: its tensors are overwritten, and memory for a second copy is saved.

    Returns:
        The state after the last step.
    """
    for event in iterate(state, data, donate=donate):
        state = event.state
    return state


def iterate(
    begin: TrainState | Beginning,
    data: Any,
    *,
    donate: bool = False,
    interrupted: Callable[[], str | None] = lambda: None,
    rescue: str | None = None,
) -> Iterator[Event]:
    """The same as a generator of events; draining it is training.

    Args:
        begin: a state, or one with what surrounded it in its checkpoint.
        data, donate: as for `fit`.
        interrupted: asked between steps; a reason ends the run.
        rescue: where to save `last` when the run ends and no callback does.

    Yields:
        StepEnd, Logged, EpochEnd, Validated, Saved and, last, Stopping. An event lends its state: clone to keep.
    """
    begin = begin if isinstance(begin, Beginning) else Beginning(state=begin)
    if not donate:
        begin = attrs.evolve(begin, state=pytree.map(clone, begin.state))
    run = Loop(begin, data_of(begin.state.program, as_data(data)), interrupted, rescue)
    with numerics(run.run.precision, run.run.deterministic), run.journal, run.saver:
        yield from run.events()


def clone(leaf: Any) -> Any:
    """A tensor's copy; anything else as it is."""
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


FINISHED = "finished"
SKIPPED = "skipped"


class Loop:
    """One run of the loop: its settings, what it moves, and whom it tells."""

    def __init__(self, begin: Beginning, data: Data, interrupted: Callable[[], str | None], rescue: str | None):
        self.program = begin.state.program
        self.trainer, self.run = self.program.trainer, self.program.run
        self.data, self.interrupted, self.rescue = data, interrupted, rescue
        self.clock = Clock(data.n_batches("train"), self.trainer.grad_accum_steps)
        self.total = self.trainer.total_steps(self.clock.steps_per_epoch)
        self.tick, self.elapsed_before = int(begin.state.tick.max()), begin.elapsed
        self.count()
        self.roster = Roster(self.program, begin.cursor.get("roster"))
        self.stepper = stepper_of(begin, data)
        self.at_home = self.stepper.device.type == "cpu" and self.program.policy.precision != "fp64"
        self.reactions = reactions_of(begin)
        self.journal = Journal(self.program.loggers, self.info())
        self.saver = Saver()
        self.pending: list[tuple[int, Tensor]] = []
        self.saves: dict[int | None, list[Save]] = {}
        self.judged_at = -1
        self.over: str | None = None
        self.gave_up = False

    def info(self) -> RunInfo:
        """What the loggers may know."""
        return RunInfo(
            name=self.run.name, out_dir=Path(self.run.out_dir), total_steps=self.total, start_step=self.step,
            config=self.program.config, members=tuple(member.values for member in self.program.members),
            layout=self.stepper.cursor().get("layout", {}),
        )  # fmt: skip

    def count(self) -> None:
        """Read the optimizer-step attempts and the finished epochs off the tick."""
        self.step, self.epoch = self.clock.attempts(self.tick), self.clock.epoch(self.tick)

    @property
    def elapsed(self) -> float:
        """Seconds of training, those before a resume included."""
        return self.elapsed_before + self.journal.elapsed

    @property
    def reason(self) -> str | None:
        """Why the run ends before all steps are done, if it does."""
        return self.roster.reason

    def events(self) -> Iterator[Event]:
        """The run, epoch by epoch, to its end."""
        while self.step < self.total and self.reason is None:
            yield from self.one_epoch()
        yield from self.finish()

    def one_epoch(self) -> Iterator[Event]:
        """What is left of the current epoch."""
        epoch = self.epoch
        self.stepper.set("slots/epoch", epoch)
        for batch in self.data.batches("train", epoch, self.clock.index(self.tick)):
            applies = self.clock.applies(self.tick)
            metrics = self.stepper(update if applies else accumulate, self.placed(batch))
            self.tick += 1
            if applies:
                self.count()
                yield from self.after_step(metrics)
                if self.reason is not None or self.step >= self.total:
                    return

    def placed(self, batch: Batch) -> Batch:
        """The batch on the run's device, in the run's arithmetic."""
        return batch if self.at_home else to_device(batch, self.stepper.device, self.program.policy.precision)

    def after_step(self, metrics: Mapping[str, Tensor]) -> Iterator[Event]:
        """Everything that hangs on one attempt: logging, an epoch's end, validation, and saving last of all."""
        self.pending.append((self.step, metrics[SKIPPED]))
        if self.step % self.trainer.log_every_n_steps == 0 or self.step == self.total:
            figures = self.roster.figures({name: value for name, value in metrics.items() if name != SKIPPED})
            self.journal.write(self.step, self.epoch, "train", figures)
            self.judge_pending()
            for member, own in figures.items():
                yield from self.tell(Logged(**self.moment(), member=member, metrics=own))
        event = StepEnd(
            step=self.step, epoch=self.epoch, state=self.stepper.state, elapsed=self.elapsed, metrics=metrics
        )
        yield event
        for action in self.reactions(event):
            yield from self.act(action, None)
        ended = self.clock.index(self.tick) == 0
        if ended:
            self.stepper.set("slots/epoch", self.epoch)
            yield from self.tell(EpochEnd(**self.moment()))
        if self.validates(ended):
            yield from self.validate()
        if ended and self.trainer.eval_every_n_epochs and self.epoch % self.trainer.eval_every_n_epochs == 0:
            yield from self.run_evaluators()
        if self.reason is None and self.step < self.total:
            if reason := self.interrupted() or self.out_of_time():
                self.end(None, reason)
            elif self.saves or self.saver.is_busy:
                yield from self.save_all()  # at the run's end, saving waits for the last judgements
        self.roster.settle()

    def out_of_time(self) -> str | None:
        """Why the clock ends the run, if it does."""
        limit = self.trainer.max_time
        return f"{limit:g} minutes are over" if limit is not None and self.elapsed >= 60 * limit else None

    def moment(self) -> dict[str, Any]:
        """What every event says."""
        return {"step": self.step, "epoch": self.epoch, "state": self.stepper.state, "elapsed": self.elapsed}

    def tell(self, event: Event) -> Iterator[Event]:
        """Yield an event, let the callbacks react, and do what they ask."""
        yield event
        for action in self.reactions(event):
            yield from self.act(action, event.member)

    def act(self, action: Action, member: int | None) -> Iterator[Event]:
        """Do one thing that a callback asked for; saving waits until everything at this step is over."""
        if isinstance(action, Save):
            self.saves.setdefault(member, []).append(action)
        elif isinstance(action, Stop):
            self.end(member, action.reason)
            self.over = self.reason
        elif isinstance(action, Log):
            self.journal.write(self.step, self.epoch, action.split, {member: action.metrics})
        elif isinstance(action, Validate):
            yield from self.validate()
            yield from self.run_evaluators()

    def end(self, member: int | None, reason: str) -> None:
        """End the run, or one member of it."""
        if self.roster.end(member, reason) and member is not None:
            self.stepper.rest(member)
            self.journal.ends(self.step, self.epoch, member, reason)

    def validates(self, epoch_ended: bool) -> bool:
        """Whether validation is due."""
        by_step, by_epoch = self.trainer.val_every_n_steps, self.trainer.val_every_n_epochs
        if by_step is not None and self.step % by_step == 0:
            return True
        return epoch_ended and by_epoch is not None and self.epoch % by_epoch == 0

    def validate(self) -> Iterator[Event]:
        """Judge the validation split, if there is one."""
        if not self.data.n_batches("val"):
            return
        self.judged_at = self.step
        results = [self.stepper(evaluate, self.placed(batch)) for batch in self.data.batches("val", 0)]
        yield from self.report("val", self.roster.over_split(results, self.program.learner.metrics))

    def run_evaluators(self) -> Iterator[Event]:
        """Let every evaluator judge the state in its own world."""
        for name, evaluator in self.program.evaluators.items():
            prefix = "" if len(self.program.evaluators) == 1 else f"{name}/"
            judged = {who: evaluator.evaluate(state) for who, state in self.roster.states(self.stepper.state)}
            yield from self.report(
                "eval", {who: {prefix + key: float(x) for key, x in own.items()} for who, own in judged.items()}
            )

    def report(self, split: str, figures: Figures) -> Iterator[Event]:
        """Log a judgement and tell of it."""
        self.journal.write(self.step, self.epoch, split, figures)
        for member, own in figures.items():
            yield from self.tell(Validated(**self.moment(), member=member, split=split, metrics=own))

    def judge_pending(self) -> None:
        """Count the bad steps since the last look: the one place where the host waits for the device."""
        steps, flags = zip(*self.pending, strict=True)
        self.pending.clear()
        for member, verdict in list(self.roster.judge(steps, torch.stack(flags))):
            self.end(member, verdict)
            self.gave_up = self.reason is not None

    def save_all(self, wait: bool = False) -> Iterator[Event]:
        """Write the checkpoints asked for at this step, and tell of those that reached the disk."""
        if self.saves and self.pending:
            self.judge_pending()
        for member, saves in self.saves.items():
            state = self.roster.state_of(self.stepper.state, member)
            self.saver.save(saves, state, self.cursor(member), self.reactions.memories_of(member))
        self.saves = {}
        for path in self.saver.written(wait):
            yield Saved(**self.moment(), path=path)

    def cursor(self, member: int | None) -> dict[str, Any]:
        """Where the run, or one member of it, stands, as a checkpoint keeps it."""
        place = {"step": self.step, "tick": self.tick, "epoch": self.epoch, "elapsed": self.elapsed, "over": self.over}
        return place if member is not None else place | {"roster": self.roster.cursor(), **self.stepper.cursor()}

    def finish(self) -> Iterator[Event]:
        """Last judgements, last callbacks, last checkpoint."""
        if self.reason is None:
            if self.judged_at != self.step:
                yield from self.validate()
            yield from self.run_evaluators()
        ended_well = self.reason is None or self.over is not None
        status = FINISHED if ended_well else "failed" if self.gave_up else "stopped"
        stopping = Stopping(**self.moment(), reason=self.reason or FINISHED, status=status)
        for action in self.reactions(stopping):
            yield from self.act(action, None)
        if self.rescue is not None and None not in self.saves:
            self.saves[None] = [Save(directory=self.rescue, name="last")]
        yield from self.save_all(wait=True)
        yield stopping
