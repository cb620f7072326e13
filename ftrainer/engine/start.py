"""Step zero of a run: schedules told how long it is, shapes and statistics from the data, weights from the seed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import attrs
import torch
from frozendict import frozendict

from ftrainer.components.base import Data
from ftrainer.functional import pytree, random, step
from ftrainer.functional.graph.backends import choose_backend
from ftrainer.functional.scaling import with_loss_scale
from ftrainer.functional.state import Program, TrainState
from registry.spec import replace

from .accelerator import pick_device, to_device
from .position import Clock

log = logging.getLogger("ftrainer.run")


def initial_state(program: Program, data: Data, statistics: Mapping[str, Any] | None = None) -> TrainState:
    """Step zero of a plain program.

    Args:
        program: with the run's length known to its schedules (`planned_program`).
        data: in the order of the run's seed; its first batch tells the shapes.
        statistics: of the training split, gathered from `data` unless given.

    Raises:
        ConfigError: the first batch does not suit the model, or the learner.
    """
    device, precision = pick_device(program.run.device), program.policy.precision
    example = next(iter(data.batches("train", 0)))
    key, on_cpu = random.key(program.run.seed), as_drawn(to_device(example, torch.device("cpu")), precision)
    state = program.learner.init(key, on_cpu, LazyStatistics(data) if statistics is None else statistics)
    state = to_device(attrs.evolve(state, program=program), device, precision)
    if hasattr(program.learner, "check"):
        program.learner.check(state, to_device(example, device, precision))
    state = with_loss_scale(state) if precision == "fp16-mixed" else state
    if program.trainer.grad_accum_steps == 1:
        return state
    return step.with_accumulator(state, to_device(example, device, precision))


def as_drawn(example: Any, precision: str) -> Any:
    """An example for weights as they are drawn, in float32: under `fp64` they are widened afterwards."""

    def narrowed(leaf: Any) -> Any:
        return leaf.float() if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64 else leaf

    return pytree.map(narrowed, example) if precision == "fp64" else example


def planned_program(program: Program, clock: Clock) -> Program:
    """The program with schedules that know how long the run is."""
    total = program.trainer.total_steps(clock.attempts_by)
    return program.but(learner=planned(program.learner, total, clock))


def settled(state: TrainState, clock: Clock) -> TrainState:
    """The state with a backend in place of `auto` in its program."""
    program = state.program
    if program.run.compile != "auto":
        return state
    n_bytes = sum(leaf.nbytes for leaf in pytree.leaves(state))
    planned_steps = program.trainer.total_steps(clock.attempts_by)
    backend, reason = choose_backend(planned_steps, n_bytes, state.step.device.type)
    log.info("run.compile: %s, since %s", backend, reason)
    members = tuple(member.but(run=replace(member.run, compile=backend)) for member in program.members)
    program = program.but(run=replace(program.run, compile=backend), members=members)
    return attrs.evolve(state, program=program)


def planned(component: Any, total: int, clock: Clock) -> Any:
    """A component whose schedules, at any depth, know how long the run is; a schedule tells those inside it itself."""
    if hasattr(component, "resolve") and attrs.has(type(component)):
        by_epoch = getattr(component, "interval", None) == "epoch"
        steps = clock.epochs_by(total) * clock.steps_per_epoch if by_epoch else total
        return component.resolve(steps, clock.steps_per_epoch)
    if type(component) is tuple:
        items = tuple(planned(item, total, clock) for item in component)
        return items if any(new is not old for new, old in zip(items, component, strict=True)) else component
    if isinstance(component, frozendict):
        entries = {key: planned(value, total, clock) for key, value in component.items()}
        return frozendict(entries) if any(entries[key] is not component[key] for key in entries) else component
    if not attrs.has(type(component)):
        return component
    fields = {f.name: getattr(component, f.name) for f in attrs.fields(type(component))}
    changed = {name: planned(value, total, clock) for name, value in fields.items()}
    changed = {name: value for name, value in changed.items() if value is not fields[name]}
    return attrs.evolve(component, **changed) if changed else component


class LazyStatistics(Mapping[str, Any]):
    """The training split's statistics on the CPU, gathered in one pass when the first is asked for."""

    def __init__(self, data: Data):
        self._data = data

    @cached_property
    def _all(self) -> Mapping[str, Any]:
        return to_device(self._data.statistics(), torch.device("cpu"))  # type: ignore[no-any-return]

    def __getitem__(self, field: str) -> Any:
        return self._all[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)
