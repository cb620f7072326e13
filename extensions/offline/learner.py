"""What learners of policies have in common: the policy is the configuration's `model:`, under the role `model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ftrainer.api import (
    Aux,
    Batch,
    Metric,
    Model,
    Phase,
    Schedule,
    Track,
    TrainState,
    Transform,
    Tree,
    component,
    invalid,
    log_prob,
    random,
    redirect,
    scheduled,
    step,
    try_metrics,
    try_phases,
    with_hyper,
)
from registry import nearest

INIT = -1
"""What the run's key is folded with for the initial weights; ticks, which count from 0, never are -1."""


@component
class PolicyLearner:
    """A policy and how it is moved; an algorithm adds its fields, `init`, `phases`, `tracks` and `judge`.

    The policy takes one input, the observation, and gives the action, or what a `gaussian_head` gives.

    Attributes:
        model: the policy.
        optimizer, scheduler: of every network; `groups` of an optimizer tell them apart by role.
        metrics: compare the policy's actions with those of the validation split.
    """

    FIELDS: ClassVar[tuple[str, ...]] = ("obs", "action")

    model: Model
    optimizer: Transform
    scheduler: Schedule | None = None
    metrics: tuple[Metric, ...] = ()

    def check(self, state: TrainState, batch: Batch) -> None:
        """Compute every loss of one batch once, forward only, and the metrics.

        Raises:
            ConfigError: a field has not the shape that the learner reads, a loss cannot be computed, or a metric
                refuses the policy's actions.
        """
        check_shapes(batch, self.FIELDS)
        try_phases(self.phases(), state, batch)
        if self.metrics:
            with torch.no_grad(), redirect(None):
                actions = action_of(self.predict(state, self.inputs(batch)))
            try_metrics(self.metrics, actions, {"action": batch["action"]})

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Tensor]]:
        """One optimizer step."""
        return step.update(self, state, batch)

    def evaluate(self, state: TrainState, batch: Batch) -> dict[str, Any]:
        """The algorithm's figures for one batch, example count, and what the metrics want collected."""
        learner, mask = with_hyper(self, state.hyper), batch.get("sample_mask")
        with redirect(None):
            figures = learner.judge(state, batch)
            if learner.metrics:
                actions = action_of(learner.predict(state, learner.inputs(batch)))
                figures["examples"] = (actions, {"action": batch["action"]}, mask)
        return figures | {"count": step.batch_size(batch) if mask is None else mask.sum()}

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """What the policy takes out of a batch."""
        return {self.model.inputs[0]: batch["obs"]}

    def predict(self, state: TrainState, inputs: Mapping[str, Any]) -> Any:
        """The policy's outputs in evaluation mode."""
        return self.model.apply(self.eval_params(state), state.buffers["model"], inputs)[0]

    def to_module(self, state: TrainState) -> nn.Module:
        """The policy as a plain module on raw observations: its normaliser's statistics are buffers of the state."""
        return self.model.to_module(self.eval_params(state), state.buffers["model"])

    def eval_params(self, state: TrainState, role: str = "model") -> Tree:
        """The weights of a network that evaluation and export use."""
        (phase,) = (phase for phase in self.phases() if role in phase.wrt)
        return phase.eval_params(state)[role]

    def phases(self) -> tuple[Phase, ...]:
        """The algorithm's losses."""
        raise NotImplementedError(f"{type(self).__name__} has no phases")

    def tracks(self) -> tuple[Track, ...]:
        """The algorithm's averages and target networks: none."""
        return ()

    def judge(self, state: TrainState, batch: Batch) -> dict[str, Any]:
        """The algorithm's figures for one batch of the validation split."""
        raise NotImplementedError(f"{type(self).__name__} has no figures")

    def transform(self) -> Transform:
        """The optimizer under its schedule."""
        return scheduled(self.optimizer, self.scheduler)

    def init_policy(self, key: Tensor, batch: Batch, statistics: Mapping[str, Any]) -> tuple[Tree, Tree]:
        """The policy's parameters and buffers.

        Raises:
            ConfigError: the data lacks a field, or the policy does not give actions like those of the data.
        """
        check_fields(batch, self.FIELDS)
        if len(self.model.inputs) != 1:
            raise invalid("takes several inputs, where a policy takes the observation", "model", "inputs",
                          found=", ".join(self.model.inputs))  # fmt: skip
        params, buffers = self.model.init(key, self.inputs(batch), statistics)
        check_outputs(self.act(params, buffers, batch["obs"]), batch["action"])
        return params, buffers

    def act(self, params: Tree, buffers: Tree, obs: Tensor) -> Any:
        """The policy's outputs at these weights, in evaluation mode."""
        return self.model.apply(params, buffers, {self.model.inputs[0]: obs})[0]

    def act_in_training(self, params: Tree, state: TrainState, obs: Tensor, key: Tensor) -> tuple[Any, Tree]:
        """The policy's outputs in training mode, and the buffers as it leaves them."""
        inputs = {self.model.inputs[0]: obs}
        return self.model.apply(params["model"], state.buffers["model"], inputs, key, train=True)


def check_fields(batch: Batch, names: tuple[str, ...]) -> None:
    """Every field that an algorithm reads is there.

    Raises:
        ConfigError: one is not.
    """
    for name in names:
        if name not in batch:
            raise invalid(
                "the learner reads a field that the data does not give", "data", "fields",
                found=", ".join(batch), expected=", ".join(names), nearest=nearest(name, batch),
            )  # fmt: skip


def check_shapes(batch: Batch, names: tuple[str, ...]) -> None:
    """Fields fit each other: numbers of an example are (B,), for a column (B, 1) would be broadcast to (B, B).

    Raises:
        ConfigError: one does not.
    """
    size = (len(batch["obs"]),)
    expected = {"reward": size, "terminal": size, "discount": size, "next_obs": tuple(batch["obs"].shape)}
    for name, shape in expected.items():
        if name in (*names, "discount") and name in batch and tuple(batch[name].shape) != shape:
            raise invalid(f"the field {name!r} has not the shape that the learner reads", "data",
                          found=str(tuple(batch[name].shape)), expected=str(shape))  # fmt: skip


def check_outputs(outputs: Any, action: Tensor) -> None:
    """A policy gives actions like those of the data.

    Raises:
        ConfigError: it gives something else, actions of another shape, or the parameters of a squashed Gaussian.
    """
    given = action_of(outputs)
    if given.shape != action.shape:
        found, expected = (f"{tuple(x.shape[1:])}" for x in (given, action))
        raise invalid("the policy's actions have another shape than the data's", "model", found=found,
                      expected=expected)  # fmt: skip
    if isinstance(outputs, Mapping) and not torch.equal(outputs["action"], outputs["mean"]):
        raise invalid(
            "recorded actions on the bounds have no density under a squashed Gaussian", "model", found="squash: true",
            expected="squash: false", hint="the simulator clips actions",
        )  # fmt: skip


def action_of(outputs: Any) -> Tensor:
    """The action that a policy's outputs stand for.

    Raises:
        ConfigError: the outputs are neither a tensor nor those of a `gaussian_head`.
    """
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping) and {"action", "mean", "log_std"} <= outputs.keys():
        return outputs["action"]
    found = f"a mapping with {', '.join(outputs)}" if isinstance(outputs, Mapping) else f"a {type(outputs).__name__}"
    raise invalid("is no policy", "model", found=found, expected="an action, or the outputs of a gaussian_head")


def imitation(outputs: Any, action: Tensor) -> Tensor:
    """How badly a policy imitates each action, (B,): squared error, or for a Gaussian its negative log likelihood."""
    if isinstance(outputs, Tensor):
        return (outputs - action).square().flatten(1).sum(1)
    return -log_prob(outputs, action).reshape(len(action), -1).sum(1)


def average(values: Tensor, batch: Batch) -> Tensor:
    """The mean over a batch's examples, padding left out; `values` is (B,)."""
    mask = batch.get("sample_mask")
    return values.mean() if mask is None else (values * mask).sum() / mask.sum()


def aux(batch: Batch, metrics: dict[str, Tensor], buffers: Tree | None = None) -> Aux:
    """What a loss says besides its value; `buffers` are the policy's."""
    told: Aux = {"metrics": {name: value.detach() for name, value in metrics.items()}}
    if buffers is not None:
        told["buffers"] = {"model": buffers}
    if "sample_mask" in batch:
        told["count"] = batch["sample_mask"].sum()
    return told


def keys(key: Tensor, n: int) -> tuple[Tensor, ...]:
    """Keys for the initial weights of `n` networks."""
    return random.split(random.fold_in(key, INIT), n).unbind()
