"""Behaviour cloning by conditional flow matching (Lipman et al., 2023; Liu et al., 2023), in chunks of actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from ftrainer.api import (
    Aux,
    Batch,
    Normalize,
    Phase,
    Track,
    TrainState,
    Tree,
    above,
    between,
    component,
    count,
    invalid,
    pytree,
    random,
    step,
    traceable,
)

from .learner import PolicyLearner, aux, average, check_fields, keys

INPUTS = ("obs", "action", "time")
FLOOR = 1e-3  # added to the deviation of an action's coordinate


@component
class FlowBC(PolicyLearner):
    """A velocity that carries noise to the data's actions (`learner.flow_bc`).

    The model takes `obs` (B, …), a point `action` (B, H·A) between noise and action, and `time` (B,) in [0, 1], and
    gives the velocity there, (B, H·A). Actions, or chunks (B, H, A) of them as `data.chunk` makes, are normalised by
    the training split's statistics, which the state holds. Evaluation and export use a moving average of the weights,
    and draw.

    Attributes:
        ema_decay: of that average.
        steps: Euler steps from noise to an action.
        bound: actions end within plus and minus this.
    """

    ema_decay: float = traceable(0.995, validator=between(0, 1))
    steps: int = attrs.field(default=10, validator=count(1))
    bound: float = attrs.field(default=1.0, validator=above(0))

    def __attrs_post_init__(self) -> None:
        if set(self.model.inputs) != set(INPUTS):
            raise invalid("is no velocity", "model", found=", ".join(self.model.inputs), expected=", ".join(INPUTS))

    def init(self, key: Tensor, example_batch: Batch, statistics: Mapping[str, Any]) -> TrainState:
        """Weights drawn from `key`, the scales of observations and actions taken from the statistics.

        Raises:
            ConfigError: the data lacks a field, or the model's velocity has not the size of a chunk.
        """
        check_fields(example_batch, self.FIELDS)
        (first,) = keys(key, 1)
        obs, action = example_batch["obs"], example_batch["action"]
        inputs = {"obs": obs, "action": action.flatten(1), "time": action.new_zeros(len(action))}
        params, own = self.model.init(first, inputs, statistics)
        velocity = self.model.apply(params, own, inputs)[0]
        if not isinstance(velocity, Tensor) or velocity.shape != inputs["action"].shape:
            found = str(tuple(velocity.shape[1:])) if isinstance(velocity, Tensor) else type(velocity).__name__
            raise invalid("the velocity has not the size of the data's actions", "model", found=found,
                          expected=str(tuple(inputs["action"].shape[1:])))  # fmt: skip
        buffers = {"model": own, "action": action_scale(statistics)}
        return step.init_state(self, key, {"model": params}, buffers)

    def phases(self) -> tuple[Phase, ...]:
        """One: match the velocity."""
        return (Phase(name="model", wrt=("model",), loss=self.flow_matching, transform=self.transform()),)

    def tracks(self) -> tuple[Track, ...]:
        """The average that acts."""
        return (Track(slot="ema", source="model", tau=1 - self.ema_decay),)

    def flow_matching(self, params: Tree, state: TrainState, batch: Batch, key: Tensor) -> tuple[Tensor, Aux]:
        """`‖v(x_t, t, s) - (x₁ - x₀)‖²` at `x_t = (1 - t) x₀ + t x₁`, x₁ an action and x₀ noise.

        Equation 1 of Liu et al.; equation 23 of Lipman et al. with σ_min = 0.
        """
        point, target = self.draw(state, batch, key)
        inputs = {"obs": batch["obs"], **point}
        velocity, buffers = self.model.apply(params["model"], state.buffers["model"], inputs, key, train=True)
        return average(squared_error(velocity, target, batch), batch), aux(batch, {}, buffers)

    def judge(self, state: TrainState, batch: Batch) -> dict[str, Any]:
        """The loss of the averaged weights, at noise and times that are the same every time."""
        point, target = self.draw(state, batch, random.key(0, device=state.key.device))
        velocity = self.velocity(state, batch["obs"])(point["action"], point["time"])
        return {"loss": average(squared_error(velocity, target, batch), batch)}

    def draw(self, state: TrainState, batch: Batch, key: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Where to learn the velocity, as inputs of the model, and what it is there."""
        scale = state.buffers["action"]
        action = ((batch["action"] - scale["mean"]) / (scale["std"] + FLOOR)).flatten(1)
        noise = random.normal(random.fold_in(key, 0), action.shape, action.dtype)
        time = random.uniform(random.fold_in(key, 1), (len(action),), action.dtype)
        return {"action": torch.lerp(noise, action, time[:, None]), "time": time}, action - noise

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """What the policy takes out of a batch."""
        return {"obs": batch["obs"]}

    def predict(self, state: TrainState, inputs: Mapping[str, Any]) -> Tensor:
        """Actions (B, A), or chunks (B, H, A), drawn from the state's key."""
        obs, scale = inputs["obs"], state.buffers["action"]
        noise = random.normal(state.key, (len(obs), scale["mean"].numel()), scale["mean"].dtype)
        return carry(self.velocity(state, obs), noise, self.steps, scale, self.bound)

    def velocity(self, state: TrainState, obs: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The averaged model at these observations, `(point, time) -> velocity`."""

        def at(action: Tensor, time: Tensor) -> Tensor:
            inputs = {"obs": obs, "action": action, "time": time}
            return self.model.apply(self.eval_params(state), state.buffers["model"], inputs)[0]

        return at

    def to_module(self, state: TrainState) -> nn.Module:
        """Observations to drawn actions or chunks, all scales inside; it draws from torch's own generator."""
        velocity = self.model.to_module(self.eval_params(state), state.buffers["model"])
        scale = pytree.map(torch.clone, state.buffers["action"])
        return FlowPolicy(velocity, self.model.inputs, scale, self.steps, self.bound).eval()

    def eval_params(self, state: TrainState, role: str = "model") -> Tree:
        """The averaged weights."""
        del role
        return state.slots["ema"]


class FlowPolicy(nn.Module):
    """A velocity as a policy: `obs` (B, …) to actions (B, A) or chunks (B, H, A)."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, velocity: nn.Module, inputs: tuple[str, ...], scale: Mapping[str, Tensor], steps: int, bound: float
    ) -> None:
        super().__init__()
        self.velocity = velocity
        self.order, self.steps, self.bound = inputs, steps, bound
        self.register_buffer("mean", scale["mean"])
        self.register_buffer("std", scale["std"])

    def forward(self, obs: Tensor, /, noise: Tensor | None = None) -> Tensor:
        """Carry noise (B, H·A), drawn here unless given, to actions."""
        scale = {"mean": self.mean, "std": self.std}
        if noise is None:
            noise = torch.randn(obs.shape[0], self.mean.numel(), dtype=obs.dtype, device=obs.device)

        def at(action: Tensor, time: Tensor) -> Tensor:
            named = {"obs": obs, "action": action, "time": time}
            return self.velocity(*(named[name] for name in self.order))

        return carry(at, noise, self.steps, scale, self.bound)


def carry(
    velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int, scale: Mapping[str, Tensor], bound: float
) -> Tensor:
    """Follow a velocity from noise, at time 0, to actions, at time 1, by Euler's method.

    Args:
        velocity: `(points (B, H·A), times (B,)) -> (B, H·A)`.
        noise: (B, H·A).
        steps: how many.
        scale: `mean` and `std` of an action (A,) or chunk (H, A).
        bound: actions are clamped to plus and minus this.

    Returns:
        (B, A) or (B, H, A).
    """
    x = noise
    for k in range(steps):
        x = x + velocity(x, torch.full_like(x[:, 0], k / steps)) / steps
    x = x.unflatten(1, scale["mean"].shape)
    return (scale["mean"] + x * (scale["std"] + FLOOR)).clamp(-bound, bound)


def squared_error(velocity: Tensor, target: Tensor, batch: Batch) -> Tensor:
    """The mean squared error of each example, (B,); of a chunk, that of the steps before the episode's end."""
    error = (velocity - target).square()
    if "action_mask" not in batch:
        return error.mean(1)
    mask = batch["action_mask"].to(error.dtype)
    per_step = error.unflatten(1, (*mask.shape[1:], -1)).mean(2)
    return (per_step * mask).sum(1) / mask.sum(1)


def action_scale(statistics: Mapping[str, Any]) -> dict[str, Tensor]:
    """`mean` and `std` of the training split's actions, (A,) or (H, A) float32.

    Raises:
        ConfigError: the data has none.
    """
    if "action" not in statistics:
        raise invalid("there are no statistics of the field 'action'", "data", found=", ".join(statistics),
                      hint="store actions as floating-point numbers")  # fmt: skip
    block = Normalize("action")
    block.fit(statistics)
    return {"mean": block.mean, "std": block.std}
