"""TD3+BC against a plain transcription of its update rules."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extensions.offline.critics import Critics
from extensions.offline.td3_bc import TD3BC
from ftrainer.components.optim.adam import Adam
from ftrainer.engine.stepper import Stepper, update
from ftrainer.functional import pytree, random
from ftrainer.functional.state import TrainState

from . import offline
from .offline import ACTION, BATCH, HIDDEN, OBS, UPDATES, loaded, mlp

LEARNER = TD3BC(
    model=offline.policy({"_type_": "nn.Linear", "in_features": HIDDEN, "out_features": ACTION}, {"_type_": "nn.Tanh"}),
    optimizer=Adam(lr=3e-3),
    critic=Critics(hidden=(HIDDEN, HIDDEN)),
    tau=0.05,
)
POLICY = {"0": "1.0", "2": "1.2", "4": "2"}
"""Layers of the transcription's actor by their names in the policy."""


class Transcription:
    """Algorithm 1 of Fujimoto, van Hoof & Meger (2018) with the actor's loss of Fujimoto & Gu (2021).

    Several `backward` calls, optimizers that write in place, targets as copies.
    """

    def __init__(self, state: TrainState, gamma: float, tau: float, alpha: float, sigma: float, clip: float, d: int):
        self.gamma, self.tau, self.alpha, self.sigma, self.clip, self.d = gamma, tau, alpha, sigma, clip, d
        weights = state.params["model"]
        by_name = {f"{a}.{p}": weights[f"{b}.{p}"] for a, b in POLICY.items() for p in ("weight", "bias")}
        self.actor = loaded(mlp(OBS, HIDDEN, HIDDEN, ACTION), by_name)
        self.q1, self.q2 = (
            loaded(mlp(OBS + ACTION, HIDDEN, HIDDEN, 1), state.params["critic"], f"{name}.") for name in ("q1", "q2")
        )
        self.targets = {name: copy.deepcopy(getattr(self, name)) for name in ("actor", "q1", "q2")}
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=3e-3)
        self.critic_optimizer = torch.optim.Adam([*self.q1.parameters(), *self.q2.parameters()], lr=3e-3)
        self.t = 0

    def pi(self, net: nn.Module, s: Tensor) -> Tensor:
        return torch.tanh(net(s))

    def q(self, net: nn.Module, s: Tensor, a: Tensor) -> Tensor:
        return net(torch.cat([s, a], 1))

    def train(self, batch: Mapping[str, Tensor], noise: Tensor) -> None:
        self.t += 1
        s, a, s_ = batch["obs"], batch["action"], batch["next_obs"]
        r, d = batch["reward"][:, None], batch["terminal"][:, None]
        with torch.no_grad():
            epsilon = (noise * self.sigma).clamp(-self.clip, self.clip)
            a_ = (self.pi(self.targets["actor"], s_) + epsilon).clamp(-1, 1)
            smaller = torch.min(self.q(self.targets["q1"], s_, a_), self.q(self.targets["q2"], s_, a_))
            y = r + (1 - d) * self.gamma * smaller
        loss = F.mse_loss(self.q(self.q1, s, a), y) + F.mse_loss(self.q(self.q2, s, a), y)
        self.critic_optimizer.zero_grad()
        loss.backward()
        self.critic_optimizer.step()
        if self.t % self.d == 0:
            self.train_actor(s, a)
            for name, target in self.targets.items():
                self.follow(target.parameters(), getattr(self, name).parameters())

    def train_actor(self, s: Tensor, a: Tensor) -> None:
        pi = self.pi(self.actor, s)
        q = self.q(self.q1, s, pi)
        lam = self.alpha / q.abs().mean().detach()
        loss = -lam * q.mean() + F.mse_loss(pi, a)
        self.actor_optimizer.zero_grad()
        loss.backward()
        self.actor_optimizer.step()

    def follow(self, targets: Iterable[nn.Parameter], sources: Iterable[nn.Parameter]) -> None:
        for target, source in zip(targets, sources, strict=True):
            target.data.copy_(self.tau * source.data + (1 - self.tau) * target.data)


@pytest.fixture(scope="module")
def both() -> tuple[TrainState, Transcription]:
    """Both after the same updates from the same weights, batches and noise."""
    state = offline.start(LEARNER)
    reference = Transcription(state, gamma=0.99, tau=0.05, alpha=2.5, sigma=0.2, clip=0.5, d=2)
    for index in range(UPDATES):
        first_phase = random.fold_in(random.fold_in(state.key, index), 0)
        noise = random.normal(first_phase, (BATCH, ACTION), torch.float64)
        reference.train(offline.normalised(offline.transitions(index)), noise)
    return offline.trained(state), reference


def of_policy(tree: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{a}.{p}": tree[f"{b}.{p}"] for a, b in POLICY.items() for p in ("weight", "bias")}


def test_every_parameter_is_equal(both: tuple[TrainState, Transcription]) -> None:
    state, reference = both
    offline.assert_follows(reference.actor, of_policy(state.params["model"]))
    offline.assert_follows(reference.q1, state.params["critic"], "q1.")
    offline.assert_follows(reference.q2, state.params["critic"], "q2.")


def test_every_target_is_equal(both: tuple[TrainState, Transcription]) -> None:
    state, reference = both
    offline.assert_follows(reference.targets["actor"], of_policy(state.slots["target_model"]))
    offline.assert_follows(reference.targets["q1"], state.slots["target_critic"], "q1.")
    offline.assert_follows(reference.targets["q2"], state.slots["target_critic"], "q2.")


def test_every_moment_is_equal(both: tuple[TrainState, Transcription]) -> None:
    state, reference = both
    actor = {name: {"model": of_policy(tree["model"])} for name, tree in state.opt_state["actor"].items()}
    offline.assert_moments(reference.actor, reference.actor_optimizer, actor, "model")
    for name in ("q1", "q2"):
        network, optimizer = getattr(reference, name), reference.critic_optimizer
        offline.assert_moments(network, optimizer, state.opt_state["critic"], "critic", f"{name}.")


def test_something_moved(both: tuple[TrainState, Transcription]) -> None:
    state, _ = both
    before = offline.start(LEARNER)
    for role, tree in before.params.items():
        assert all((state.params[role][name] - weight).abs().max() > 1e-3 for name, weight in tree.items())


def test_computing_what_is_due_is_computing_all_and_choosing() -> None:
    state = offline.start(LEARNER)
    stepper = Stepper(pytree.map(torch.clone, state), "trace")
    told = [set(stepper(update, offline.transitions(index))) for index in range(5)]
    expected = offline.trained(state, updates=5)
    torch.testing.assert_close(pytree.leaves(stepper.state), pytree.leaves(expected), rtol=0, atol=1e-14)
    assert stepper.traces == 2
    assert ["actor/loss" in names for names in told] == [False, True, False, True, False]
    assert all("critic/loss" in names for names in told)
