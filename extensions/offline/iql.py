"""Implicit Q-learning (Kostrikov, Nair & Levine, 2022, "Offline Reinforcement Learning with Implicit Q-Learning")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ftrainer.api import (
    Aux,
    Batch,
    Phase,
    Track,
    TrainState,
    Tree,
    above,
    at_least,
    between,
    component,
    fraction,
    step,
    traceable,
)

from .critics import Critics
from .learner import PolicyLearner, aux, average, imitation, keys


@component
class IQL(PolicyLearner):
    """Values of the better part of what the data did, and a policy that imitates that part (`learner.iql`).

    One phase moves critics, state value and policy together, so that every loss reads the other networks as the last
    step left them; what a loss shall not move it reads from the state, which is not differentiated. Then the critics'
    target follows. Equations are those of the paper.

    Attributes:
        critic: sizes of critics and state value, and the scale of rewards.
        discount: γ.
        expectile: τ of equation 5; 0.5 values the data's own behaviour, towards 1 its best actions.
        temperature: β of equation 7: how much better actions count for more; 0 is behaviour cloning.
        max_weight: bound of an action's weight.
        tau: how far the target of the critics moves.
    """

    FIELDS = ("obs", "action", "reward", "next_obs", "terminal")

    critic: Critics = Critics()
    discount: float = traceable(0.99, validator=between(0, 1))
    expectile: float = traceable(0.8, validator=fraction())
    temperature: float = traceable(3.0, validator=at_least(0))
    max_weight: float = traceable(100.0, validator=above(0))
    tau: float = traceable(0.005, validator=between(0, 1))

    def init(self, key: Tensor, example_batch: Batch, statistics: Mapping[str, Any]) -> TrainState:
        """Weights drawn from `key`, normalisers filled from the statistics, the target equal to the critics."""
        first, second, third = keys(key, 3)
        policy, own = self.init_policy(first, example_batch, statistics)
        params, buffers = self.critic.init({"critic": second, "value": third}, example_batch, statistics)
        return step.init_state(self, key, {"model": policy, **params}, {"model": own, **buffers})

    def phases(self) -> tuple[Phase, ...]:
        """All networks at once."""
        return (Phase(name="iql", wrt=("critic", "value", "model"), loss=self.joint_loss, transform=self.transform()),)

    def tracks(self) -> tuple[Track, ...]:
        """The critics' target network."""
        return (Track(slot="target_critic", source="critic", tau=self.tau),)

    def joint_loss(self, params: Tree, state: TrainState, batch: Batch, key: Tensor) -> tuple[Tensor, Aux]:
        """The sum of the three losses; each moves its own network."""
        outputs, buffers = self.act_in_training(params, state, batch["obs"], key)
        losses, figures = self.losses(outputs, params, state, batch)
        return total(losses), aux(batch, losses | figures, buffers)

    def judge(self, state: TrainState, batch: Batch) -> dict[str, Any]:
        """The three losses and their sum."""
        outputs = self.act(self.eval_params(state), state.buffers["model"], batch["obs"])
        losses, figures = self.losses(outputs, state.params, state, batch)
        return {"loss": total(losses), **losses, **figures}

    def losses(
        self, outputs: Any, params: Tree, state: TrainState, batch: Batch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Equations 5, 6 and 7 at a policy's outputs, and the mean state value."""
        target_q = self.q(state.slots["target_critic"], state, batch).amin(-1)
        v = self.v(params["value"], state, batch["obs"])
        next_v = self.v(state.params["value"], state, batch["next_obs"])
        target = self.critic.target(state.buffers, batch, next_v, self.discount)
        advantage = target_q - v
        q_error = (self.q(params["critic"], state, batch) - target[:, None]).square().sum(-1)
        weight = (self.temperature * advantage.detach()).exp().clamp(max=self.max_weight)
        losses = {
            "value_loss": average(expectile_loss(advantage, self.expectile), batch),
            "critic_loss": average(q_error, batch),
            "actor_loss": average(weight * imitation(outputs, batch["action"]), batch),
        }
        return losses, {"v": average(v, batch)}

    def q(self, params: Tree, state: TrainState, batch: Batch) -> Tensor:
        """Twin values of the data's actions, (B, 2)."""
        return self.critic.q.apply(params, state.buffers["critic"], batch)[0]

    def v(self, params: Tree, state: TrainState, obs: Tensor) -> Tensor:
        """Values of states, (B,)."""
        return self.critic.v.apply(params, state.buffers["value"], {"obs": obs})[0]


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of the losses."""
    return torch.stack(list(losses.values())).sum()


def expectile_loss(difference: Tensor, expectile: Any) -> Tensor:
    """`|τ - 1(u < 0)| u²` (equation 5), elementwise.

    >>> expectile_loss(torch.tensor([-1.0, 2.0]), 0.75)
    tensor([0.2500, 3.0000])
    """
    below = (difference < 0).to(difference.dtype)
    return (expectile * (1 - below) + (1 - expectile) * below) * difference.square()
