"""From a configuration to a trained state: the pipeline, stage by stage."""

from __future__ import annotations

import importlib.util
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import torch

from ftrainer.components.base import Data, DataSpec
from ftrainer.components.data.extras import MissingPackage
from ftrainer.components.loggers.csv import CsvLogger
from ftrainer.components.loggers.curves import Curves
from ftrainer.components.loggers.jsonl import JsonLines
from ftrainer.components.loggers.members import Members
from ftrainer.components.loggers.progress import ProgressBar
from ftrainer.components.loggers.stdout import Stdout
from ftrainer.components.loggers.summary import Summary
from ftrainer.config import (
    ResolvedConfig,
    resolve_config,
    validate_post_model,
    validate_preflight,
)
from ftrainer.engine.accelerator import check_backend, check_precision, pick_device, to_device
from ftrainer.engine.inference import first_figures
from ftrainer.engine.loop import told
from ftrainer.engine.position import Clock, run_clock
from ftrainer.engine.reactions import check_reported, check_saving, check_watched
from ftrainer.engine.recorded import facts, recorded
from ftrainer.engine.replicas import stacked
from ftrainer.engine.resume import Beginning, checkpoint_directories, cursor_at, locate, restore, why_finished
from ftrainer.engine.roster import Roster
from ftrainer.engine.rundir import CHECKPOINTS, ORIGINS, claim, describe, replace_text
from ftrainer.engine.start import LazyStatistics, initial_state, planned_program, settled
from ftrainer.engine.status import FAILED, FINISHED, Chronicle, noted
from ftrainer.examine import examine
from ftrainer.functional.events import Stopping
from ftrainer.functional.replicate import member
from ftrainer.functional.state import Program, TrainState
from ftrainer.model import summary
from ftrainer.model.build import build_model
from ftrainer.stages import Experiment, build_registry, instantiate_value, located, replicated, validate_specs
from registry import ConfigError, Registry, invalid

log = logging.getLogger("ftrainer.run")

Config = str | Path | Mapping[str, Any]
Overrides = Mapping[str, Any] | Sequence[str] | None


def build(cfg: Config, overrides: Overrides = None, *, registry: Registry | None = None) -> tuple[TrainState, Data]:
    """A state at step zero and the data to train it on.

    Args:
        cfg: a YAML file's path, or the same as a mapping.
        overrides: values by dotted path, `{"trainer.max_steps": 200}`, or `key.path=value` texts.
        registry: the built-in components unless given; `ftrainer.builtin_registry().register(key, factory)` adds one.

    Raises:
        ConfigError: with everything that is wrong, each with its place in the text.
    """
    return start(plan(cfg, overrides, registry=registry))


def run_experiment(
    config_path: Config,
    overrides: Overrides = None,
    *,
    registry: Registry | None = None,
    resume: str | None = None,
    overwrite: bool = False,
    interrupted: Callable[[], str | None] = lambda: None,
) -> TrainState:
    """The whole pipeline, with a run directory around it: resolve → validate → register → model → components → fit.

    Args:
        config_path, overrides, registry: as for `build`.
        resume: a checkpoint to go on from, or `auto` for the run's newest; `run.resume_from` unless given.
        overwrite: remove an earlier run in `run.out_dir`.
        interrupted: asked between steps; a reason ends the run with a checkpoint.

    Returns:
        The state after the last step, also of a run that failed, which a warning and `status.json` in `run.out_dir`
        tell: all that it trains had `trainer.max_bad_steps` in a row, or its end could not be saved.

    Raises:
        ConfigError: the configuration is wrong (nothing is written then), or `run.out_dir` holds another run.
    """
    experiment = watched(plan(config_path, overrides, registry=registry))
    return train(experiment, resume, overwrite=overwrite, interrupted=interrupted).state


def train(
    experiment: Experiment,
    resume: str | None = None,
    *,
    overwrite: bool = False,
    interrupted: Callable[[], str | None] = lambda: None,
) -> Stopping:
    """Fit what was planned, in its run directory; how it ended. The arguments are those of `run_experiment`."""
    resolved, run = experiment.resolved, experiment.program.run
    saved = checkpoint_directories(experiment.program)
    if resume:
        path = locate(resume, saved)
    else:
        resume = run.resume_from
        with located(resolved):
            path = locate(resume, saved, ("run", "resume_from"))
    state, data = start(experiment, cursor_at(path))
    claimed = claim(Path(run.out_dir), resolved.to_yaml(), resume=bool(resume), overwrite=overwrite)
    with located(resolved), claimed as out_dir, noted(out_dir):
        begin = restore(state, data, path, keep_backend=run.compile == "auto")
        describe(out_dir, resolved.to_yaml())
        replace_text(out_dir / ORIGINS, resolved.to_yaml(origin=True))
        if reason := why_finished(begin, data, resume):
            log.info("%s is finished: %s", run.name, reason)
            return as_it_ended(begin, reason)
        with Chronicle(out_dir, facts(begin, data, resolved.digest), resumed=bool(begin.cursor)) as chronicle:
            rescue = str(out_dir / CHECKPOINTS)
            events = told(begin, data, donate=True, interrupted=interrupted, rescue=rescue)
            (ending,) = deque(recorded(events, chronicle), maxlen=1)
    assert isinstance(ending, Stopping)
    return ending


def as_it_ended(begin: Beginning, reason: str) -> Stopping:
    """How a run ended that has nothing left to do."""
    state, cursor = begin.state, begin.cursor
    failure = Roster(state.program, cursor["roster"]).failure
    if failure:
        log.warning("%s failed: %s", state.program.run.name, failure)
    return Stopping(
        step=cursor["step"], epoch=cursor["epoch"], state=state, elapsed=begin.elapsed,
        reason=failure or reason, status=FAILED if failure else FINISHED,
    )  # fmt: skip


def plan(cfg: Config, overrides: Overrides = None, *, registry: Registry | None = None) -> Experiment:
    """Resolve and validate a configuration and build its components.

    Raises:
        ConfigError: with everything that is wrong, each with its place in the text.
    """
    try:
        return planned(cfg, overrides or {}, registry)
    except ConfigError:
        examine(cfg, overrides or {}, registry)  # finds all, where a stage stops at what is wrong in itself
        raise


def planned(cfg: Config, overrides: Mapping[str, Any] | Sequence[str], registry: Registry | None = None) -> Experiment:
    """Stage by stage, each of which expects the one before to have found nothing.

    Raises:
        ConfigError: with what the first stage finds that finds anything.
    """
    resolved = resolve_config(cfg, overrides)
    validate_preflight(resolved)
    with located(resolved):
        registry = build_registry(resolved, registry)
        validate_specs(resolved, registry)
        model = build_model(registry, resolved.data["model"])
        validate_post_model(resolved, registry, model.inputs)
        return replicated(instantiate_value(resolved, registry, model), registry)


def watched(experiment: Experiment) -> Experiment:
    """The experiment with what every run on disk leaves and shows: rows, a progress bar, a table, curves."""
    program = experiment.program
    there = {type(logger) for logger in program.loggers}
    shown = [Members()] if program.replicate is not None else [Summary(), *([Curves()] if can_draw() else [])]
    wanted = [JsonLines(), CsvLogger(), *shown, *([] if Stdout in there else [ProgressBar()])]
    loggers = (*program.loggers, *(logger for logger in wanted if type(logger) not in there))
    return attrs.evolve(experiment, program=program.but(loggers=loggers))


def can_draw() -> bool:
    """Whether there is a library for pictures."""
    return importlib.util.find_spec("matplotlib") is not None


def start(experiment: Experiment, cursor: Mapping[str, Any] = MappingProxyType({})) -> tuple[TrainState, Data]:
    """Open the data, infer the shapes from one batch, draw the initial weights.

    Args:
        experiment: from `plan`.
        cursor: of the checkpoint that will be restored into the state, which decides how long the rest of the run is.

    Raises:
        ConfigError: the data cannot be opened, a callback watches what will never be reported, or the configuration
            makes several groups of runs.
    """
    program = experiment.program
    with located(experiment.resolved):
        if experiment.groups:
            raise invalid(f"makes {len(experiment.groups)} groups, which are no one state", "replicate", "groups",
                          hint="train them by `ftrainer train`, or by ftrainer.sweep.sweep")  # fmt: skip
        device = pick_device(program.run.device)
        check_precision(program.run.precision, program.trainer.guard, device)
        check_backend(program.run.compile, device)
        with located(experiment.resolved, "data"):
            data = opened(experiment.data, program.run.seed, device)
        check_watched(program, data)
        check_saving(program)
        clock = run_clock(program, data, cursor)
        state = settled(first_state(planned_program(program, clock), data, clock), clock)
        check_evaluators(state, experiment.resolved)
        check_reported(program, lambda: first_figures(state, data))
        return state, data


def opened(spec: DataSpec, seed: int, device: torch.device) -> Data:
    """The data of a spec.

    Raises:
        ConfigError: they do not suit the spec, or a package that reads them is not installed.
    """
    try:
        return spec.open(seed=seed, device=device)
    except MissingPackage as error:
        raise invalid(str(error)) from error


def architecture(cfg: Config, overrides: Overrides = None) -> str:
    """The model's layers as a table, with the shapes that the first batch takes on its way and parameter counts.

    Raises:
        ConfigError: as `build`, or the learner builds its networks itself.
    """
    experiment = plan(cfg, overrides)
    learner, run = experiment.program.learner, experiment.program.run
    with located(experiment.resolved):
        if not (hasattr(learner, "model") and hasattr(learner, "io")):
            raise invalid("this learner builds its networks itself; there is no one model to show", "learner")
        data = experiment.data.open(seed=run.seed, device="cpu")
        example = to_device(next(iter(data.batches("train", 0))), torch.device("cpu"))
        return summary.render(summary.table(learner.model, learner.io.inputs(example), LazyStatistics(data)))


def first_state(program: Program, data: Data, clock: Clock) -> TrainState:
    """Step zero of a run, or of all members of a stack of runs."""
    if not program.members:
        return initial_state(program, data)
    return stacked(program.but(members=tuple(planned_program(each, clock) for each in program.members)), data)


def check_evaluators(state: TrainState, resolved: ResolvedConfig) -> None:
    """Let every evaluator that has a `check` see that it can judge such a state, before a step is trained."""
    plain = member(state, 0) if state.program.members else state
    for name, evaluator in state.program.evaluators.items():
        if hasattr(evaluator, "check"):
            with located(resolved, "evaluators", name):
                evaluator.check(plain)
