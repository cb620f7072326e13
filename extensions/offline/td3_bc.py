"""TD3+BC (Fujimoto & Gu, 2021, "A Minimalist Approach to Offline Reinforcement Learning")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
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
    count,
    invalid,
    random,
    step,
    traceable,
)

from .critics import Critics
from .learner import PolicyLearner, aux, average, keys


@component
class TD3BC(PolicyLearner):
    """TD3 whose policy is held close to the data (`learner.td3_bc`).

    Each step the critics move; every second step, after them, the policy and then all target networks. Equations are
    those of the paper; TD3's own are in Fujimoto et al. (2018).

    Attributes:
        critic: sizes of the critics and the scale of rewards.
        discount: γ.
        alpha: weight of the values against the imitation, α of equation 5; 0 is behaviour cloning.
        tau: how far target networks move.
        noise: standard deviation of the noise on target actions, which smooths the values.
        noise_clip: bound of that noise.
        bound: actions lie between minus and plus this.
        every: steps to one of the policy.
    """

    FIELDS = ("obs", "action", "reward", "next_obs", "terminal")

    critic: Critics = Critics()
    discount: float = traceable(0.99, validator=between(0, 1))
    alpha: float = traceable(2.5, validator=at_least(0))
    tau: float = traceable(0.005, validator=between(0, 1))
    noise: float = traceable(0.2, validator=at_least(0))
    noise_clip: float = traceable(0.5, validator=at_least(0))
    bound: float = traceable(1.0, validator=above(0))
    every: int = attrs.field(default=2, validator=count(1))

    def init(self, key: Tensor, example_batch: Batch, statistics: Mapping[str, Any]) -> TrainState:
        """Weights drawn from `key`, normalisers filled from the statistics, targets equal to what they follow."""
        first, second = keys(key, 2)
        policy, own = self.init_policy(first, example_batch, statistics)
        if not isinstance(self.act(policy, own, example_batch["obs"]), Tensor):
            raise invalid("TD3+BC moves a deterministic policy", "model", found="a distribution", expected="an action")
        params, buffers = self.critic.init({"critic": second}, example_batch, statistics)
        return step.init_state(self, key, {"model": policy, **params}, {"model": own, **buffers})

    def phases(self) -> tuple[Phase, ...]:
        """First the critics; then, every `every` steps, the policy, which reads them as they now are."""
        transform = self.transform()
        return (
            Phase(name="critic", wrt=("critic",), loss=self.critic_loss, transform=transform),
            Phase(name="actor", wrt=("model",), loss=self.actor_loss, transform=transform, every=self.every),
        )

    def tracks(self) -> tuple[Track, ...]:
        """Target networks, which move when the policy does."""
        return (
            Track(slot="target_critic", source="critic", tau=self.tau, every=self.every),
            Track(slot="target_model", source="model", tau=self.tau, every=self.every),
        )

    def critic_loss(self, params: Tree, state: TrainState, batch: Batch, key: Tensor) -> tuple[Tensor, Aux]:
        """Squared distance of both values from the smaller target one at the target policy's noisy action."""
        noise = self.noise * random.normal(key, batch["action"].shape, batch["action"].dtype)
        loss, q = self.bellman_error(params, state, batch, noise.clamp(-self.noise_clip, self.noise_clip))
        return loss, aux(batch, {"q": q})

    def actor_loss(self, params: Tree, state: TrainState, batch: Batch, key: Tensor) -> tuple[Tensor, Aux]:
        """`-λ Q₁(s, π(s)) + (π(s) - a)²` (equation 3)."""
        action, buffers = self.act_in_training(params, state, batch["obs"], key)
        loss, error = self.regularised(action, state, batch)
        return loss, aux(batch, {"action_error": error}, buffers)

    def judge(self, state: TrainState, batch: Batch) -> dict[str, Any]:
        """Both losses, without noise."""
        action = self.act(self.eval_params(state), state.buffers["model"], batch["obs"])
        loss, error = self.regularised(action, state, batch)
        critic_loss, q = self.bellman_error(state.params, state, batch, 0.0)
        return {"loss": loss, "action_error": error, "critic_loss": critic_loss, "q": q}

    def bellman_error(self, params: Tree, state: TrainState, batch: Batch, noise: Any) -> tuple[Tensor, Tensor]:
        """The critics' loss, and their mean value."""
        next_action = self.act(state.slots["target_model"], state.buffers["model"], batch["next_obs"])
        next_action = (next_action + noise).clamp(-self.bound, self.bound)
        next_q = self.q(state.slots["target_critic"], state, batch["next_obs"], next_action).amin(-1)
        target = self.critic.target(state.buffers, batch, next_q, self.discount)
        q = self.q(params["critic"], state, batch["obs"], batch["action"])
        return average((q - target[:, None]).square().sum(-1), batch), average(q.mean(-1), batch)

    def regularised(self, action: Tensor, state: TrainState, batch: Batch) -> tuple[Tensor, Tensor]:
        """The policy's loss and its squared error; λ is a number of equation 5, no function of the policy.

        As in the authors' code, λ is of the values at the policy's actions and the error a mean over dimensions.
        """
        inputs = {"obs": batch["obs"], "action": action}
        q, _ = self.critic.q1.apply(state.params["critic"], state.buffers["critic"], inputs)
        weight = self.alpha / average(q.abs(), batch).detach()
        error = average((action - batch["action"]).square().mean(-1), batch)
        return error - weight * average(q, batch), error

    def q(self, params: Tree, state: TrainState, obs: Tensor, action: Tensor) -> Tensor:
        """Twin values, (B, 2)."""
        return self.critic.q.apply(params, state.buffers["critic"], {"obs": obs, "action": action})[0]
