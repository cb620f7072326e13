"""Proof that a configuration resumes exactly: the same run twice, once in two halves, compared bit by bit."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from ftrainer.components.callbacks.model_checkpoint import ModelCheckpoint
from ftrainer.components.loggers.jsonl import JsonLines
from ftrainer.engine.rundir import CHECKPOINTS
from ftrainer.experiment import plan, start, train
from ftrainer.stages import Experiment
from registry import ConfigError, Issue, Registry, invalid
from registry.spec import replace

from .compare import Saved, differing_leaves, differing_memories, differing_rows, rows

Config = str | Path | Mapping[str, Any]
Overrides = Mapping[str, Any] | Sequence[str]
PROBE, METRICS = "probe", "metrics.jsonl"


@attrs.frozen(kw_only=True)
class Verdict:
    """What the comparison found.

    Attributes:
        at, steps: where the second run was stopped, and how long both were.
        before: sentences on what differed at the stop already: the run itself does not repeat.
        after: sentences on what differed at the end.
    """

    at: int
    steps: int
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether nothing differed."""
        return not self.before and not self.after

    def __str__(self) -> str:
        if self.is_exact:
            return f"exact: {self.steps} steps, stopped after {self.at} and resumed, ended bitwise as those at once"
        found = self.before or self.after
        when = "already at the stop, so the run itself does not repeat" if self.before else "after the resume"
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return f"not exact: the runs differ {when}. First: {found[0]}{more}"


def verify_resume(
    config: Config,
    overrides: Overrides = (),
    *,
    at: int,
    steps: int | None = None,
    registry: Registry | None = None,
) -> Verdict:
    """Train a configuration whole, and again in two parts, and compare everything that a run leaves.

    Nothing is written outside a temporary directory: callbacks save there, and only `metrics.jsonl` is logged. With the
    built-in registry each part runs in a process of its own, as a run does that was killed.

    Args:
        config, overrides: as for `build`.
        at: the step after which the second run is stopped.
        steps: how long both are; twice `at` unless given.
        registry: as for `build`; with one all parts run in this process.

    Raises:
        ConfigError: the configuration is wrong, its data cannot be resumed exactly, or the run is over by step `at`.
    """
    steps = 2 * at if steps is None else steps
    if not 1 <= at < steps:
        raise invalid("must lie within the run", "at", found=str(at), expected=f"1 to {steps - 1}")
    trial = Trial(config=config, overrides=overrides, at=at, steps=steps, registry=registry)
    trial.check()
    run = trial.train if registry is not None else partial(apart, trial)
    with tempfile.TemporaryDirectory() as temporary:
        whole, parts = Path(temporary) / "whole", Path(temporary) / "parts"
        run(whole, None)
        run(parts, at)
        run(parts, None)
        return compared(whole, parts, at, steps)


@attrs.frozen(kw_only=True)
class Trial:
    """What is trained, whole and in parts; the fields are the arguments of `verify_resume`."""

    config: Config
    overrides: Overrides
    at: int
    steps: int
    registry: Registry | None = None

    def check(self) -> None:
        """Raise a ConfigError for data that cannot be resumed exactly."""
        _, data = start(plan(self.config, self.overrides, registry=self.registry))
        if data.exact_resume is not None:
            raise invalid(f"cannot be resumed exactly: {data.exact_resume}", "data")

    def train(self, out_dir: Path, stop: int | None) -> None:
        """Train in a directory from where it stands, to its end or for so many steps."""
        experiment = confined(plan(self.config, self.overrides, registry=self.registry), out_dir, self.at, self.steps)
        left = None if stop is None else iter(range(stop - 1))
        train(experiment, "auto", interrupted=lambda: None if left is None or next(left, -1) >= 0 else "stopped")


def confined(experiment: Experiment, out_dir: Path, at: int, steps: int) -> Experiment:
    """The experiment as it writes nothing but what will be compared, into one directory."""
    program = experiment.program
    saves = str(out_dir / CHECKPOINTS)
    probe = ModelCheckpoint(save_dir=str(out_dir / PROBE), every_n_steps=at, keep=None)
    callbacks = [replace(c, save_dir=saves) if hasattr(c, "save_dir") else c for c in program.callbacks]
    trainer = replace(program.trainer, max_steps=steps, log_every_n_steps=1, max_time=None)
    run = replace(program.run, out_dir=str(out_dir), resume_from=None)
    changed = program.but(trainer=trainer, run=run, callbacks=(*callbacks, probe), loggers=(JsonLines(),))
    members = tuple(
        member.but(trainer=trainer, run=replace(member.run, out_dir=str(out_dir))) for member in program.members
    )
    return attrs.evolve(experiment, program=changed.but(members=members))


def compared(whole: Path, parts: Path, at: int, steps: int) -> Verdict:
    """What differs between the two directories.

    Raises:
        ConfigError: the run was over before it could be stopped.
    """
    ends = [Saved.at(directory / PROBE / "last") for directory in (whole, parts)]
    if ends[0].manifest["cursor"]["step"] <= at:
        raise invalid("the run is over by then", "at", found=str(at))
    middle = [Saved.at(directory / PROBE / f"step-{at:08d}") for directory in (whole, parts)]
    before = tuple(differing_leaves(middle[0].tensors, middle[1].tensors))
    after = (
        *differing_leaves(ends[0].tensors, ends[1].tensors),
        *differing_rows(rows(whole / METRICS), rows(parts / METRICS)),
        *differing_memories(*ends),
    )
    return Verdict(at=at, steps=steps, before=before, after=after)


def apart(trial: Trial, out_dir: Path, stop: int | None) -> None:
    """`trial.train` in a process of its own, which begins with nothing but its arguments.

    Raises:
        ConfigError: what it raised.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        issues = pool.submit(issues_of, trial, out_dir, stop).result()
    if issues:
        raise ConfigError(issues)


def issues_of(trial: Trial, out_dir: Path, stop: int | None) -> tuple[Issue, ...]:
    """What is wrong with the configuration, found by training it: errors do not travel between processes."""
    try:
        trial.train(out_dir, stop)
    except ConfigError as error:
        return error.issues
    return ()
