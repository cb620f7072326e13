"""Behaviour cloning (Pomerleau, 1991), with deterministic or Gaussian actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ftrainer.api import Aux, Batch, Phase, TrainState, Tree, component, step

from .learner import PolicyLearner, action_of, aux, average, imitation, keys


@component
class BC(PolicyLearner):
    """Do what the data did (`learner.bc`).

    What the policy gives decides the loss: the squared error of an action, summed over its dimensions, or the negative
    log likelihood under the Gaussian of a `gaussian_head`, of which evaluation and export use the mean.
    """

    def init(self, key: Tensor, example_batch: Batch, statistics: Mapping[str, Any]) -> TrainState:
        """Weights drawn from `key`, the normaliser filled from the statistics."""
        (first,) = keys(key, 1)
        params, buffers = self.init_policy(first, example_batch, statistics)
        return step.init_state(self, key, {"model": params}, {"model": buffers})

    def phases(self) -> tuple[Phase, ...]:
        """One: imitate."""
        return (Phase(name="model", wrt=("model",), loss=self.imitate, transform=self.transform()),)

    def imitate(self, params: Tree, state: TrainState, batch: Batch, key: Tensor) -> tuple[Tensor, Aux]:
        """The mean error or negative log likelihood of the data's actions."""
        outputs, buffers = self.act_in_training(params, state, batch["obs"], key)
        return average(imitation(outputs, batch["action"]), batch), aux(batch, {}, buffers)

    def judge(self, state: TrainState, batch: Batch) -> dict[str, Any]:
        """The loss, and the mean squared error of the action."""
        outputs = self.act(self.eval_params(state), state.buffers["model"], batch["obs"])
        error = (action_of(outputs) - batch["action"]).square().flatten(1).mean(1)
        return {"loss": average(imitation(outputs, batch["action"]), batch), "action_error": average(error, batch)}
