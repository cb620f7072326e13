"""A run under way: one state threaded through one step, batch after batch, and told as events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor

from ftrainer.components.base import Batch, Data, RunInfo
from ftrainer.functional.events import (
    Action,
    EpochEnd,
    Event,
    Log,
    Logged,
    Save,
    Saved,
    Scale,
    StepEnd,
    Stop,
    Stopping,
    Validate,
    Validated,
)

from .accelerator import to_device
from .agenda import Agenda
from .crew import reactions_of, stepper_of
from .journal import Journal
from .position import run_clock
from .reactions import outlived
from .resume import Beginning
from .roster import Figures, Roster, prefixed
from .saving import Saver
from .status import FAILED
from .stepper import accumulate, evaluate, update

log = logging.getLogger("ftrainer.run")


SKIPPED = "skipped"
Who = Sequence[int | None]
"""Members; a plain run is the member None."""


class Training:
    """A run from where it begins to its end: its settings, what it moves, and whom it tells.

    Args:
        begin, data: as for `iterate`, with Data.
        interrupted: asked between steps; None where nothing can interrupt.
        rescue: where to save `last` when the run ends and no callback does.
        is_followed: whether somebody wants every event; where not, and no callback does, most steps make none.
    """

    def __init__(
        self,
        begin: Beginning,
        data: Data,
        interrupted: Callable[[], str | None] | None = None,
        rescue: str | None = None,
        is_followed: bool = True,
    ):
        self.program = begin.state.program
        self.trainer, self.run = self.program.trainer, self.program.run
        self.data, self.rescue = data, rescue
        self.interrupted = interrupted or (lambda: None)
        self.clock = run_clock(self.program, data, begin.cursor)
        self.total = self.trainer.total_steps(self.clock.attempts_by)
        self.agenda = Agenda(trainer=self.trainer, clock=self.clock, total=self.total)
        self.tick, self.elapsed_before = int(begin.state.tick.max()), begin.elapsed
        self.step, self.epoch = self.clock.attempts(self.tick), self.clock.epoch(self.tick)
        self.roster = Roster(self.program, begin.cursor.get("roster"))
        self.stepper = stepper_of(begin, data)
        self.at_home = self.stepper.device.type == "cpu" and self.program.policy.precision != "fp64"
        self.reactions = reactions_of(begin)
        is_timed = interrupted is not None or self.trainer.max_time is not None
        self.looks_away = not (is_followed or is_timed or self.reactions)
        self.due = self.step
        self.journal = Journal(self.program.loggers, self.info())
        self.saver = Saver()
        self.pending: list[tuple[int, Tensor]] = []
        self.saves: dict[int | None, list[Save]] = {}
        self.judged_at = -1
        self.over: str | None = None
        self.is_cut = False
        self.leaving: list[int] = []

    def info(self) -> RunInfo:
        """What the loggers may know."""
        return RunInfo(
            name=self.run.name, out_dir=Path(self.run.out_dir), total_steps=self.total, start_step=self.step,
            config=self.program.config, members=tuple(member.values for member in self.program.members),
            layout=self.stepper.cursor().get("layout", {}),
        )  # fmt: skip

    @property
    def epoch_ended(self) -> bool:
        """Whether the last micro-batch was its epoch's last."""
        return self.clock.index(self.tick) == 0

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
                self.step += 1
                self.epoch += self.epoch_ended
                if self.looks_away and self.step < self.due:
                    self.pending.append((self.step, metrics[SKIPPED]))
                    continue
                yield from self.after_step(metrics)
                if self.reason is not None or self.step >= self.total:
                    return

    def placed(self, batch: Batch) -> Batch:
        """The batch on the run's device, in the run's arithmetic."""
        return batch if self.at_home else to_device(batch, self.stepper.device, self.program.policy.precision)

    def after_step(self, metrics: Mapping[str, Tensor]) -> Iterator[Event]:
        """Everything that hangs on one attempt: logging, an epoch's end, validation, and saving last of all."""
        self.pending.append((self.step, metrics[SKIPPED]))
        if self.agenda.logs(self.step):
            yield from self.log_metrics({name: value for name, value in metrics.items() if name != SKIPPED})
        self.journal.flush_old()
        yield from self.tell(StepEnd(**self.moment(), metrics=metrics))
        ended = self.epoch_ended
        if ended:
            self.stepper.set("slots/epoch", self.epoch)
            yield from self.tell(EpochEnd(**self.moment()))
        if self.agenda.validates(self.step, self.epoch, ended):
            yield from self.validate()
        if self.agenda.evaluates(self.epoch, ended):
            yield from self.run_evaluators()
        while self.leaving:
            leaving, self.leaving = self.leaving, []
            yield from self.judge_last(leaving)
        if self.reason is None and self.step < self.total:
            if reason := self.interrupted():
                self.end(None, reason, is_cut=True)
            elif reason := self.agenda.out_of_time(self.elapsed):
                self.end(None, reason)
            elif self.saves or self.saver.is_busy:
                yield from self.save_all()  # at the run's end, saving waits for the last judgements
        for member in self.roster.settle():
            self.stepper.rest(member)
        self.due = self.agenda.next_due(self.step, self.epoch)

    def log_metrics(self, metrics: Mapping[str, Tensor]) -> Iterator[Event]:
        """Fetch training's figures from the device, count the bad steps, and tell of both."""
        verdicts = self.count_pending()
        figures = self.roster.figures(metrics)
        self.journal.write(self.step, self.epoch, "train", figures)
        self.give_up(verdicts)
        for member, own in figures.items():
            yield from self.tell(Logged(**self.moment(), member=member, metrics=own))

    def moment(self) -> dict[str, Any]:
        """What every event says."""
        return {"step": self.step, "epoch": self.epoch, "state": self.stepper.state, "elapsed": self.elapsed}

    def tell(self, event: Event) -> Iterator[Event]:
        """Yield an event, let the callbacks react, and do what they ask."""
        yield event
        yield from self.react(event)

    def react(self, event: Event) -> Iterator[Event]:
        """Let the callbacks react and do what they ask; where one fails, the run ends once this step is over."""
        for action in self.reactions(event):
            yield from self.act(action, event.member)
        if self.reactions.failure:
            self.end(None, str(self.reactions.failure), is_cut=self.step < self.total)

    def act(self, action: Action, member: int | None) -> Iterator[Event]:
        """Do one thing that a callback asked for; saving waits until everything at this step is over."""
        if isinstance(action, Save):
            self.saves.setdefault(member, []).append(action)
        elif isinstance(action, Stop):
            self.end(member, action.reason)
            self.over = self.reason
        elif isinstance(action, Log):
            self.journal.write(self.step, self.epoch, action.split, {member: action.metrics})
        elif isinstance(action, Scale):
            self.stepper.set("slots/lr_scale", action.lr, member)
        elif isinstance(action, Validate):
            yield from self.validate()
            yield from self.run_evaluators()

    def end(self, member: int | None, reason: str, is_cut: bool = False) -> None:
        """End the run, or one member of it, after this step; what is cut short is not judged a last time."""
        if not self.roster.end(member, reason):
            return
        if member is None:
            self.is_cut = is_cut
            return
        self.journal.ends(self.step, self.epoch, member, reason)
        self.leaving += [] if is_cut else [member]

    def give_up(self, verdicts: Sequence[tuple[int | None, str]]) -> None:
        """End those that had too many bad steps in a row."""
        for member, verdict in verdicts:
            self.end(member, verdict, is_cut=True)

    def validate(self, who: Who | None = None) -> Iterator[Event]:
        """Judge some members, by default all that are still training, on the validation split, if there is one."""
        if not self.data.n_batches("val"):
            return
        self.judged_at = self.step if who is None else self.judged_at
        results = [self.stepper(evaluate, self.placed(batch)) for batch in self.data.batches("val", 0)]
        members = self.roster.active if who is None else who
        yield from self.report("val", self.roster.over_split(results, self.program.learner.metrics, members))

    def run_evaluators(self, chosen: Who | None = None) -> Iterator[Event]:
        """Let every evaluator judge some members, by default all that are still training, in its own world."""
        members = self.roster.active if chosen is None else chosen
        for name, evaluator in self.program.evaluators.items():
            figures = {who: evaluator.evaluate(self.roster.state_of(self.stepper.state, who)) for who in members}
            yield from self.report("eval", prefixed(figures, self.program.evaluators, name))

    def judge_last(self, who: Who | None) -> Iterator[Event]:
        """Judge those that end here: once more on the validation split unless they just were, and by the evaluators."""
        if self.judged_at != self.step:
            yield from self.validate(who)
        yield from self.run_evaluators(who)

    def report(self, split: str, figures: Figures) -> Iterator[Event]:
        """Log a judgement and tell of it."""
        self.journal.write(self.step, self.epoch, split, figures)
        for member, own in figures.items():
            yield from self.tell(Validated(**self.moment(), member=member, split=split, metrics=own))

    def count_pending(self) -> list[tuple[int | None, str]]:
        """Count the bad steps since the last look: who had too many, and what to say. The host waits for the device."""
        if not self.pending:
            return []
        steps, flags = zip(*self.pending, strict=True)
        self.pending.clear()
        return list(self.roster.judge(steps, flags, self.clock.place_text))

    def save_all(self, wait: bool = False) -> Iterator[Event]:
        """Write the checkpoints asked for at this step, and tell of those that reached the disk."""
        if self.saves:
            self.give_up(self.count_pending())
            self.journal.flush()
        for member, saves in sorted(self.saves.items(), key=lambda item: item[0] is None):  # the run's own last of all
            state = self.roster.state_of(self.stepper.state, member)
            self.saver.save(saves, state, {"cursor": self.cursor(member), **self.reactions.saved(member)})
        self.saves = {}
        for path in self.saver.written(wait):
            yield Saved(**self.moment(), path=path)

    def cursor(self, member: int | None) -> dict[str, Any]:
        """Where the run, or one member of it, stands, as a checkpoint keeps it."""
        place = {"step": self.step, "tick": self.tick, "epoch": self.epoch, "elapsed": self.elapsed, "over": self.over,
                 "clock": attrs.asdict(self.clock), "roster": self.roster.cursor(member)}  # fmt: skip
        return place if member is not None else place | self.stepper.cursor()

    def finish(self) -> Iterator[Event]:
        """Last judgements, last callbacks, last checkpoint; then a callback's failure, if there was one."""
        self.give_up(self.count_pending())
        if self.roster.active and not self.is_cut:
            yield from self.judge_last(None)
        stopping = Stopping(**self.moment(), **self.roster.ending(self.is_cut))
        yield from self.react(stopping)
        if self.rescue is not None and None not in self.saves:
            self.saves[None] = [Save(directory=self.rescue, name="last")]
        is_asked = bool(self.saves.get(None))
        yield from self.save_all(wait=True)
        self.roster.sum_up()
        if self.reactions.failure:
            raise outlived(self.reactions.failure, self.step if is_asked and not self.saver.failure else None)
        stopping = attrs.evolve(stopping, **self.roster.ending(self.is_cut, self.saver.failure))
        if stopping.status == FAILED:
            log.warning("%s failed: %s", self.run.name, stopping.reason)
        yield stopping
