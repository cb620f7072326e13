"""One model, one loss, one optimizer: supervised learning and behaviour cloning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ftrainer.components.base import IO, Batch, Loss, Metric, Model, Schedule
from ftrainer.components.losses.trial import try_loss, try_metrics
from ftrainer.components.optim.scheduled import scheduled
from ftrainer.functional import step
from ftrainer.functional.phases import Aux, Phase, Track, Transform
from ftrainer.functional.precision import autocast
from ftrainer.functional.random import fold_in
from ftrainer.functional.redirect import redirect
from ftrainer.functional.state import TrainState, Tree, with_hyper
from registry.spec import component, traceable

INIT = -1
"""What the run's key is folded with for the initial weights; ticks, which count from 0, never are -1."""


@component
class Supervised:
    """Minimise a loss between the model's outputs and a batch's targets (`learner.supervised`).

    Attributes:
        model, loss, optimizer, scheduler, io, metrics: the components of the same configuration keys.
        ema_decay: the decay of an exponential moving average of the weights, which evaluation then uses;
            null keeps none.
    """

    model: Model
    loss: Loss
    optimizer: Transform
    io: IO
    scheduler: Schedule | None = None
    metrics: tuple[Metric, ...] = ()
    ema_decay: float | None = traceable(None)

    def init(self, key: Tensor, example_batch: Batch, statistics: Mapping[str, Any]) -> TrainState:
        """Weights drawn from `key`, shapes inferred from one batch, normalisers filled from the statistics."""
        params, buffers = self.model.init(fold_in(key, INIT), self.io.inputs(example_batch), statistics)
        return step.init_state(self, key, {"model": params}, {"model": buffers})

    def check(self, state: TrainState, batch: Batch) -> None:
        """Compute the loss of one batch once, forward only, and the metrics.

        Raises:
            ConfigError: the loss cannot be computed, or is not one number; a metric refuses outputs or targets.
        """
        (phase,), mask = self.phases(), sample_mask(batch)
        with torch.no_grad(), redirect(state.key), autocast(state.program.policy.precision, state.step.device.type):
            params, buffers = state.params["model"], state.buffers["model"]
            outputs, _ = self.model.apply(params, buffers, self.io.inputs(batch), state.key, train=True)
            targets = self.io.targets(batch)
            step.check_scalar(phase, try_loss(self.loss, outputs, targets, mask))
            try_metrics(self.metrics, outputs, targets)

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Tensor]]:
        """One optimizer step."""
        return step.update(self, state, batch)

    def evaluate(self, state: TrainState, batch: Batch) -> dict[str, Any]:
        """Loss, example count, and what the metrics want collected, without dropout."""
        learner = with_hyper(self, state.hyper)
        with redirect(None):
            outputs = learner.predict(state, learner.io.inputs(batch))
        targets, mask = learner.io.targets(batch), sample_mask(batch)
        count = torch.full_like(state.step, step.batch_size(batch)) if mask is None else mask.sum()
        result = {"loss": learner.loss(outputs, targets, mask), "count": count}
        return result if not learner.metrics else {**result, "examples": (outputs, targets, mask)}

    def predict(self, state: TrainState, inputs: Mapping[str, Any]) -> Any:
        """The model's outputs in evaluation mode, with the averaged weights where there are some."""
        return self.model.apply(self.eval_params(state), state.buffers["model"], inputs, train=False)[0]

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What the module of `to_module` takes, by name, out of a batch."""
        return self.io.inputs(batch)

    def to_module(self, state: TrainState) -> nn.Module:
        """The model as a plain module with the weights that evaluation uses."""
        return self.model.to_module(self.eval_params(state), state.buffers["model"])

    def eval_params(self, state: TrainState, role: str = "model") -> Tree:
        """The weights that evaluation and export use."""
        if "ema" in state.slots:
            return state.slots["ema"]
        (phase,) = self.phases()
        return phase.eval_params(state)[role]

    def phases(self) -> tuple[Phase, ...]:
        """One phase: the loss moves the model."""
        transform = scheduled(self.optimizer, self.scheduler)
        return (Phase(name="model", wrt=("model",), loss=self.objective, transform=transform),)

    def tracks(self) -> tuple[Track, ...]:
        """The moving average, if one is kept."""
        return () if self.ema_decay is None else (Track(slot="ema", source="model", tau=1 - self.ema_decay),)

    def objective(self, params: Tree, state: TrainState, batch: Batch, key: Tensor) -> tuple[Tensor, Aux]:
        """The training loss of one batch."""
        inputs, mask = self.io.inputs(batch), sample_mask(batch)
        outputs, buffers = self.model.apply(params["model"], state.buffers["model"], inputs, key, train=True)
        aux: Aux = {"buffers": {"model": buffers}}
        if mask is not None:
            aux["count"] = mask.sum()
        return self.loss(outputs, self.io.targets(batch), mask), aux


def sample_mask(batch: Batch) -> Tensor | None:
    """(B,) bool: which examples of a padded batch are real; None where all are."""
    return batch.get("sample_mask") if isinstance(batch, Mapping) else None
