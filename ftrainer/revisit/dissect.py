"""One optimizer step in its parts, run eagerly and looked at for numbers that are not finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from torch import Tensor

from ftrainer.components.base import Batch
from ftrainer.functional import augment, pytree, step
from ftrainer.functional.phases import Phase
from ftrainer.functional.random import fold_in
from ftrainer.functional.state import TrainState, with_hyper
from registry import invalid

from .nonfinite import Finding, count_text, first_finding, is_finite


def dissect(state: TrainState, batches: Sequence[Batch]) -> Finding | None:
    """Where the first number arises that is not finite; None where all are finite.

    Args:
        state: of a plain run, before the step.
        batches: the step's micro-batches.

    Raises:
        ConfigError: the learner is not made of phases.
    """
    learner = with_hyper(state.program.learner, state.hyper)
    if not hasattr(learner, "phases"):
        raise invalid(f"{type(learner).__name__} is not made of phases, which are what a replay looks into", "learner")
    finding = spoilt(state, "before the step")
    for batch in batches[:-1]:
        finding = finding or of_batch(learner, state, batch)
        state = step.accumulate(learner, state, batch)[0]
    return finding or of_batch(learner, state, batches[-1])


def of_batch(learner: Any, state: TrainState, batch: Batch) -> Finding | None:
    """The same for one micro-batch: each phase in turn, on what the one before left."""
    policy, key, new = state.program.policy, fold_in(state.key, state.tick), step.working(state)
    batch = augment.apply(policy.transforms, batch, fold_in(key, step.AUGMENT))
    phases = learner.phases()
    for index, phase in enumerate(phases):
        if not step.due(new, phase.every):
            continue
        finding, new = of_phase(phase, new, batch, fold_in(key, index))
        if finding is not None:
            where = finding.place if len(phases) == 1 else f"{finding.place} in the phase {phase.name}"
            return attrs.evolve(finding, place=where)
    return None


def of_phase(phase: Phase, state: TrainState, batch: Batch, key: Tensor) -> tuple[Finding | None, TrainState]:
    """What goes wrong in a phase's loss, its gradients, or what the optimizer makes of them; and the state after it."""
    policy = state.program.policy
    finding = first_finding(
        lambda moved: step.objective(phase, moved, state, batch, key, policy)[0], phase.select(state.params)
    )
    if finding is not None:
        return finding, state
    out, norm = step.condition(policy, step.total(state, step.gradients(phase, state, batch, key, policy)))
    if not all(is_finite(value) for value in norm.values()):
        return Finding(place="the gradients", what="each is finite, but their global norm is not"), state
    state = step.apply_phase(phase, *step.scheduled(phase, state), state, out)
    return spoilt(state, "after the optimizer's update"), state


def spoilt(state: TrainState, when: str) -> Finding | None:
    """The first tensor of a state that is not finite."""
    parts = {"params": state.params, "buffers": state.buffers, "opt_state": state.opt_state}
    for path, leaf in zip(pytree.paths(parts), pytree.leaves(parts), strict=True):
        if not is_finite(leaf):
            return Finding(place=path, what=f"it holds {count_text(leaf)} {when}")
    return None
