"""Small learners that tests of the mechanism use: a linear model, no registry, no YAML."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.components.optim.adamw import AdamW
from ftrainer.functional import phases, random, step
from ftrainer.functional.state import Program, StepPolicy, TrainState
from registry import component


@component
class Linear:
    """Least squares: one phase over `{"model": {"w", "b"}}`."""

    optimizer: Any = AdamW(lr=0.01)
    every: int = 1
    tau: float | None = None

    def phases(self) -> tuple[phases.Phase, ...]:
        return (phases.Phase(name="model", wrt=("model",), loss=squared, transform=self.optimizer, every=self.every),)

    def tracks(self) -> tuple[phases.Track, ...]:
        return () if self.tau is None else (phases.Track(slot="ema", source="model", tau=self.tau),)

    def update(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Tensor]]:
        return step.update(self, state, batch)


def squared(params: Any, state: TrainState, batch: Any, key: Tensor) -> tuple[Tensor, phases.Aux]:
    """The mean squared error of `x @ w + b`."""
    del state, key
    model = params["model"]
    return (batch["x"] @ model["w"] + model["b"] - batch["y"]).square().mean(), {}


def linear_state(learner: Linear | None = None, dtype: torch.dtype = torch.float64, **policy: Any) -> TrainState:
    """Step zero of a linear model from 3 inputs to 2 outputs."""
    k = random.key(7)
    params = {"model": {"w": random.normal(k, (3, 2), dtype), "b": random.normal(random.fold_in(k, 1), (2,), dtype)}}
    state = step.init_state(learner or Linear(), k, params, {"model": {}})
    return attrs.evolve(state, program=Program(learner=learner or Linear(), policy=StepPolicy(**policy)))


def linear_batch(index: int, n: int = 8, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Batch number `index`."""
    k = random.fold_in(random.key(3), index)
    return {"x": random.normal(k, (n, 3), dtype), "y": random.normal(random.fold_in(k, 1), (n, 2), dtype)}


class Doubled(torch.autograd.Function):
    """Twice its input, with a gradient of its own."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return grad * 2
