"""Implicit Q-learning against a plain transcription of its update rules."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from extensions.offline.critics import Critics
from extensions.offline.iql import IQL
from ftrainer.components.optim.adam import Adam
from ftrainer.functional.state import TrainState

from . import offline
from .offline import ACTION, HIDDEN, OBS, UPDATES, loaded, mlp

HEAD = {"_type_": "gaussian_head", "in_features": HIDDEN, "out_features": ACTION, "state_dependent": False}
LEARNER = IQL(
    model=offline.policy(HEAD),
    optimizer=Adam(lr=3e-3),
    critic=Critics(hidden=(HIDDEN, HIDDEN)),
    expectile=0.8,
    temperature=3.0,
    max_weight=5.0,
    tau=0.05,
)
POLICY = {"body.0": "1.0", "body.2": "1.2", "mean": "2.mean"}
"""Layers of the transcription's actor by their names in the policy."""


class Actor(nn.Module):
    """A Gaussian whose deviation does not depend on the state."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*mlp(OBS, HIDDEN, HIDDEN), nn.ReLU())
        self.mean = nn.Linear(HIDDEN, ACTION).double()
        self.log_std = nn.Parameter(torch.zeros(ACTION, dtype=torch.float64))

    def forward(self, s: Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(self.mean(self.body(s)), self.log_std.clamp(-5, 2).exp())


class Transcription:
    """Equations 5 to 7 of Kostrikov et al. (2022): all three losses at the old networks, then three optimizers."""

    def __init__(self, state: TrainState, gamma: float, tau: float, expectile: float, beta: float, top: float):
        self.gamma, self.tau, self.expectile, self.beta, self.top = gamma, tau, expectile, beta, top
        critic = state.params["critic"]
        self.q1, self.q2 = (loaded(mlp(OBS + ACTION, HIDDEN, HIDDEN, 1), critic, f"{name}.") for name in ("q1", "q2"))
        self.q1_target, self.q2_target = copy.deepcopy(self.q1), copy.deepcopy(self.q2)
        self.v = loaded(mlp(OBS, HIDDEN, HIDDEN, 1), state.params["value"], "v.")
        self.actor = loaded(Actor(), of_policy(state.params["model"]))
        critics = [*self.q1.parameters(), *self.q2.parameters()]
        self.optimizers = {
            name: torch.optim.Adam(weights, lr=3e-3)
            for name, weights in {"q": critics, "v": self.v.parameters(), "actor": self.actor.parameters()}.items()
        }

    def train(self, batch: Mapping[str, Tensor]) -> None:
        s, a, s_ = batch["obs"], batch["action"], batch["next_obs"]
        sa = torch.cat([s, a], 1)
        with torch.no_grad():
            target = batch["reward"][:, None] + self.gamma * (1 - batch["terminal"][:, None]) * self.v(s_)
            q = torch.min(self.q1_target(sa), self.q2_target(sa))
        u = q - self.v(s)
        losses = {
            "v": (torch.abs(self.expectile - (u < 0).double()) * u**2).mean(),
            "q": ((self.q1(sa) - target) ** 2).mean() + ((self.q2(sa) - target) ** 2).mean(),
            "actor": self.actor_loss(s, a, u.detach()),
        }
        for name, loss in losses.items():
            self.optimizers[name].zero_grad()
            loss.backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        for target_net, net in ((self.q1_target, self.q1), (self.q2_target, self.q2)):
            for slow, fast in zip(target_net.parameters(), net.parameters(), strict=True):
                slow.data.copy_(self.tau * fast.data + (1 - self.tau) * slow.data)

    def actor_loss(self, s: Tensor, a: Tensor, advantage: Tensor) -> Tensor:
        weight = torch.exp(self.beta * advantage).clamp(max=self.top)
        return -(weight * self.actor(s).log_prob(a).sum(1, keepdim=True)).mean()


def of_policy(tree: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {f"{a}.{p}": tree[f"{b}.{p}"] for a, b in POLICY.items() for p in ("weight", "bias")}
    return named | {"log_std": tree["2.log_std"]}


@pytest.fixture(scope="module")
def both() -> tuple[TrainState, Transcription]:
    """Both after the same updates from the same weights and batches."""
    state = offline.start(LEARNER)
    reference = Transcription(state, gamma=0.99, tau=0.05, expectile=0.8, beta=3.0, top=5.0)
    for index in range(UPDATES):
        reference.train(offline.normalised(offline.transitions(index)))
    return offline.trained(state), reference


def test_every_parameter_is_equal(both: tuple[TrainState, Transcription]) -> None:
    state, reference = both
    offline.assert_follows(reference.actor, of_policy(state.params["model"]))
    offline.assert_follows(reference.v, state.params["value"], "v.")
    offline.assert_follows(reference.q1, state.params["critic"], "q1.")
    offline.assert_follows(reference.q2, state.params["critic"], "q2.")


def test_every_target_is_equal(both: tuple[TrainState, Transcription]) -> None:
    state, reference = both
    offline.assert_follows(reference.q1_target, state.slots["target_critic"], "q1.")
    offline.assert_follows(reference.q2_target, state.slots["target_critic"], "q2.")


def test_every_moment_is_equal(both: tuple[TrainState, Transcription]) -> None:
    state, reference = both
    moments, optimizers = state.opt_state["iql"], reference.optimizers
    actor = {name: {"model": of_policy(tree["model"])} for name, tree in moments.items()}
    offline.assert_moments(reference.actor, optimizers["actor"], actor, "model")
    offline.assert_moments(reference.v, optimizers["v"], moments, "value", "v.")
    offline.assert_moments(reference.q1, optimizers["q"], moments, "critic", "q1.")
    offline.assert_moments(reference.q2, optimizers["q"], moments, "critic", "q2.")


def test_something_moved(both: tuple[TrainState, Transcription]) -> None:
    state, _ = both
    before = offline.start(LEARNER)
    for role, tree in before.params.items():
        assert all((state.params[role][name] - weight).abs().max() > 1e-3 for name, weight in tree.items())
