"""Callbacks at work: pure reactions to events, their memories, and the actions they ask for."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from ftrainer.components.base import Callback, Data
from ftrainer.components.callbacks.monitor import refuse_unknown, split_and_name
from ftrainer.components.callbacks.observer import observers
from ftrainer.functional.events import Action, Event, Save
from ftrainer.functional.state import Program
from registry.issue import ConfigError, ConfigPath, Issue, dotted

log = logging.getLogger("ftrainer.run")

NAMES = "callback_names"
"""The manifest's entry for what the callbacks are called whose memories it holds."""

Placed = tuple[ConfigPath, Callback]
"""A callback and where the configuration names it."""


class CallbackError(RuntimeError):
    """A callback raised; the message names it and the event."""


def reacting(program: Program) -> tuple[Placed, ...]:
    """Everything that reacts to events: the callbacks, then the schedule that watches a figure, if there is one."""
    named: list[Placed] = [(("callbacks", index), callback) for index, callback in enumerate(program.callbacks)]
    return (*named, *((("scheduler",), observer) for observer in observers(program.learner)))


def title(callback: Callback) -> str:
    """What a memory belongs to: the class, and the figure that it watches.

    >>> from ftrainer.components.callbacks.early_stopping import EarlyStopping
    >>> title(EarlyStopping(monitor="val/loss"))
    'EarlyStopping val/loss min'
    """
    watched = (getattr(callback, name, None) for name in ("monitor", "mode"))
    return " ".join([type(callback).__name__, *(str(word) for word in watched if word is not None)])


def check_watched(program: Program, data: Data) -> None:
    """See that what is watched will be reported at all.

    Raises:
        ConfigError: somebody watches validation, and the split is empty, or an evaluator, and there is none.
    """
    missing: dict[str, str] = {}
    if not data.n_batches("val"):
        missing["val"] = "the validation split is empty"
    if not program.evaluators:
        missing["eval"] = "there are no evaluators"
    issues = []
    for path, callback in reacting(program):
        monitor = getattr(callback, "monitor", None)
        split = split_and_name(monitor)[0] if isinstance(monitor, str) else None
        if split in missing:
            problem = f"{monitor!r} will never be reported: {missing[split]}"
            issues.append(
                Issue(path=(*path, "monitor"), problem=problem, hint="figures of training are watched as `train/loss`")
            )
    if issues:
        raise ConfigError(issues)


def check_reported(program: Program, figures: Callable[[], Mapping[str, float]]) -> None:
    """See that what is watched in validation will be among its figures.

    Args:
        program: whose callbacks and schedule may watch something.
        figures: what validation reports; asked for only where somebody watches it.

    Raises:
        ConfigError: there is no such figure.
    """
    watching = [(path, monitor) for path, callback in reacting(program) if (monitor := watched_in_val(callback))]
    if not watching:
        return
    reported, issues = figures(), []
    for path, monitor in watching:
        try:
            refuse_unknown(monitor, reported)
        except ConfigError as error:
            issues += [issue.under(path) for issue in error.issues]
    if issues:
        raise ConfigError(issues)


def watched_in_val(callback: Callback) -> str | None:
    """The figure of validation that a callback watches."""
    monitor = getattr(callback, "monitor", None)
    return monitor if isinstance(monitor, str) and split_and_name(monitor)[0] == "val" else None


def check_saving(program: Program) -> None:
    """See that callbacks can save where they want to.

    Raises:
        ConfigError: a `save_dir` is a file, or lies below one or where nothing may be written.
    """
    issues = []
    for path, callback in reacting(program):
        chosen = getattr(callback, "save_dir", None)
        if isinstance(chosen, str) and (reason := why_closed(Path(chosen))):
            issues.append(Issue(path=(*path, "save_dir"), problem=reason, found=chosen))
    if issues:
        raise ConfigError(issues)


def why_closed(folder: Path) -> str | None:
    """Why a directory cannot be made or written to; None where it can."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        return f"{there} is no directory"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} may not be written to"


class Reactions:
    """The callbacks of a run with what they remember; `memories` is JSON data and travels in the checkpoint.

    One that raises is told nothing more, the others are: what they ask to be saved is not lost with it. Whoever tells
    them raises `failure` when the step is over.

    Args:
        callbacks: with their places.
        memories: what each remembers; None, for one or for all, where it begins.
    """

    def __init__(self, callbacks: Sequence[Placed], memories: Sequence[Any] | None = None):
        self._callbacks = tuple(callbacks)
        known = [None] * len(self._callbacks) if memories is None else memories
        pairs = zip(self._callbacks, known, strict=True)
        self.memories = [callback.init() if memory is None else memory for (_, callback), memory in pairs]

        self.failure: Exception | None = None
        self._silent: set[int] = set()
        self.titles = [title(callback) for _, callback in self._callbacks]

    def __len__(self) -> int:
        """How many callbacks react."""
        return len(self._callbacks)

    def saved(self, member: int | None) -> dict[str, Any]:
        """What a checkpoint of the run keeps."""
        del member
        return {"callbacks": list(self.memories), NAMES: self.titles}

    def __call__(self, event: Event) -> list[Action]:
        """Tell every callback, in order, and collect what they want done."""
        actions: list[Action] = []
        for index, placed in enumerate(self._callbacks):
            if index in self._silent:
                continue
            try:
                self.memories[index], wanted = reaction(placed, self.memories[index], event)
            except (ConfigError, CallbackError) as error:
                self._silent.add(index)
                self.failure = self.failure or error
                log.warning("%s; the run ends with this step", error)
                continue
            actions += wanted
        return actions


def reaction(placed: Placed, memory: Any, event: Event) -> tuple[Any, Sequence[Action]]:
    """What one callback remembers of an event, and wants done.

    Raises:
        ConfigError: it found fault with its configuration.
        CallbackError: it raised anything else.
    """
    path, callback = placed
    try:
        memory, wanted = callback.on_event(memory, event)
    except ConfigError as error:
        raise ConfigError(issue.under(path) for issue in error.issues) from error
    except Exception as error:
        name, moment = type(callback).__name__, type(event).__name__
        raise CallbackError(f"{dotted(path)} ({name}) failed on {moment} at step {event.step}: {error}") from error
    return memory, wanted


def outlived(failure: Exception, saved_at: int | None) -> Exception:
    """A callback's failure that the run saw to its step's end, after a warning that says what is saved.

    Args:
        failure: of the callback.
        saved_at: the step at whose end the run was saved; None where it was not.
    """
    if saved_at is None:
        log.warning("the run ended at a callback's failure, and its end is not saved")
    else:
        log.warning("the run ended at a callback's failure and is saved at step %d: once that is repaired, "
                    "`--resume auto`, or `fit(…, resume=\"auto\")`, goes on from there", saved_at)  # fmt: skip
    return failure


class MemberReactions:
    """The callbacks of a stack of runs.

    What concerns the whole run they meet once; a member's figures they meet with a memory of that member's own. What
    they ask to be saved then is that member, in a directory of its own.
    """

    def __init__(self, callbacks: Sequence[Placed], n_members: int, memories: Mapping[str, Any] | None = None):
        given = memories or {"all": None, "members": [None] * n_members}
        self._all = Reactions(callbacks, given["all"])
        self._members = [Reactions(callbacks, memory) for memory in given["members"]]
        self.failure: Exception | None = None

    def __len__(self) -> int:
        """How many callbacks react."""
        return len(self._all)

    @property
    def memories(self) -> dict[str, Any]:
        """JSON data that travels in the checkpoint."""
        return {"all": self._all.memories, "members": [member.memories for member in self._members]}

    def saved(self, member: int | None) -> dict[str, Any]:
        """What a checkpoint of the whole run keeps, or one of a member that goes on alone."""
        return (
            self._all.saved(None) | {"callbacks": self.memories}
            if member is None
            else self._members[member].saved(None)
        )

    def __call__(self, event: Event) -> list[Action]:
        """As `Reactions`."""
        told = self._all if event.member is None else self._members[event.member]
        actions = told(event)
        self.failure = self.failure or told.failure
        return actions if event.member is None else [in_own_directory(action, event.member) for action in actions]


def in_own_directory(action: Action, member: int) -> Action:
    """A save that is asked for on behalf of one member, beside the others'; any other action as it is.

    >>> in_own_directory(Save(directory="checkpoints", name="best-val-loss"), 3).directory
    'checkpoints/member-3'
    """
    if not isinstance(action, Save):
        return action
    return attrs.evolve(action, directory=f"{action.directory}/member-{member}")
