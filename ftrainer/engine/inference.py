"""What a trained state is good for: figures on a split, predictions, an ordinary module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftrainer.components.base import Data
from ftrainer.components.data.adapt import as_data
from ftrainer.functional.replicate import member
from ftrainer.functional.state import TrainState, with_hyper

from .accelerator import to_device
from .evaluation import evaluate_split
from .stepper import evaluate as judge


def evaluate(state: TrainState, data: Any, split: str | None = None) -> dict[str, float]:
    """Loss and metrics over a whole split, means weighted by examples.

    Args:
        state: what to judge; averaged weights are used where the state keeps them.
        data: what `build` gave, a torch `DataLoader`, or a list of batches.
        split: `train` or `val`, which is the default; a `DataLoader` or a list, which knows no splits, is taken whole.

    Raises:
        ValueError: the split is empty, or the state is a stack of runs.
    """
    refuse_stack(state)
    whole, policy = as_data(data), state.program.policy
    split = split or ("val" if whole is data else "train")
    if not whole.n_batches(split):
        raise ValueError(f"the {split} split is empty: there is nothing to evaluate")
    batches = (to_device(batch, state.step.device, policy.precision) for batch in whole.batches(split, 0))
    with torch.no_grad():
        return evaluate_split(lambda batch: judge(state, batch), batches, state.program.learner.metrics)


def first_figures(state: TrainState, data: Data) -> dict[str, float]:
    """What validation will report, by the first batch of it; a stack's first member speaks for all."""
    one = member(state, 0) if state.program.members else state
    policy = one.program.policy
    batch = to_device(next(iter(data.batches("val", 0))), one.step.device, policy.precision)
    with torch.no_grad():
        return evaluate_split(lambda batch: judge(one, batch), [batch], one.program.learner.metrics)


def predict(state: TrainState, inputs: Mapping[str, Any] | Tensor | np.ndarray) -> Any:
    """The model's outputs in evaluation mode.

    Args:
        state: whose weights.
        inputs: by the model's input names, or one tensor where the model has one input; numpy arrays are tensors too.

    Raises:
        ValueError: the state is a stack of runs.
    """
    refuse_stack(state)
    learner = with_hyper(state.program.learner, state.hyper)
    named = inputs if isinstance(inputs, Mapping) else {learner.model.inputs[0]: inputs}
    named = {name: torch.as_tensor(x) if isinstance(x, np.ndarray) else x for name, x in named.items()}
    with torch.no_grad():
        return learner.predict(state, to_device(named, state.step.device, state.program.policy.precision))


def to_module(state: TrainState) -> nn.Module:
    """An ordinary `nn.Module` with the trained weights, its normaliser inside; the state keeps its own tensors.

    Raises:
        ValueError: the state is a stack of runs.
    """
    refuse_stack(state)
    return state.program.learner.to_module(state)


def refuse_stack(state: TrainState) -> None:
    """Raise where a state is many runs, of which one has to be meant."""
    if n_members := len(state.program.members):
        raise ValueError(f"the state holds {n_members} runs: take one with ftrainer.member(states, i)")
