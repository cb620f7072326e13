"""IQL and TD3+BC as their papers' code writes them: a backward pass, an optimizer step and an `.item()` per loss."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batch = Mapping[str, Tensor]
LR, GAMMA, TAU = 3e-4, 0.99, 0.005


def mlp(n_in: int, n_out: int, width: int, *last: nn.Module) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_out), *last
    )


class Twin(nn.Module):
    """Two action values."""

    def __init__(self, n_obs: int, n_action: int, width: int) -> None:
        super().__init__()
        self.q1, self.q2 = (mlp(n_obs + n_action, 1, width) for _ in range(2))

    def both(self, s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([s, a], 1)
        return self.q1(x).squeeze(-1), self.q2(x).squeeze(-1)


class Gaussian(nn.Module):
    """A bounded mean, and one deviation per dimension."""

    def __init__(self, n_obs: int, n_action: int, width: int) -> None:
        super().__init__()
        self.mean = mlp(n_obs, n_action, width, nn.Tanh())
        self.log_std = nn.Parameter(torch.zeros(n_action))

    def forward(self, s: Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(self.mean(s), self.log_std.clamp(-5, 2).exp())


def frozen(module: nn.Module) -> nn.Module:
    """A target network."""
    return copy.deepcopy(module).requires_grad_(False)


def follow(target: nn.Module, source: nn.Module) -> None:
    """Polyak averaging."""
    for slow, fast in zip(target.parameters(), source.parameters(), strict=True):
        slow.data.copy_((1 - TAU) * slow.data + TAU * fast.data)


def advance(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """One step of one network, and its loss for the log."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


class IQL:
    """Implicit Q-learning (Kostrikov et al., 2022)."""

    def __init__(self, n_obs: int, n_action: int, width: int, device: str) -> None:
        self.v = mlp(n_obs, 1, width).to(device)
        self.q, self.actor = (cls(n_obs, n_action, width).to(device) for cls in (Twin, Gaussian))
        self.target: Any = frozen(self.q)
        self.optimizers = [torch.optim.Adam(net.parameters(), lr=LR) for net in (self.v, self.q, self.actor)]

    def update(self, batch: Batch) -> dict[str, float]:
        """Value, critics and policy in turn."""
        s, a = batch["obs"], batch["action"]
        with torch.no_grad():
            next_v = self.v(batch["next_obs"]).squeeze(-1)
            target_q = torch.min(*self.target.both(s, a))
        advantage = target_q - self.v(s).squeeze(-1)
        v_loss = (torch.abs(0.8 - (advantage < 0).float()) * advantage**2).mean()
        log = {"v": advance(self.optimizers[0], v_loss)}
        y = batch["reward"] + (1 - batch["terminal"]) * GAMMA * next_v
        log["q"] = advance(self.optimizers[1], sum(F.mse_loss(q, y) for q in self.q.both(s, a)))
        follow(self.target, self.q)
        weight = torch.exp(3.0 * advantage.detach()).clamp(max=100.0)
        log["actor"] = advance(self.optimizers[2], -(weight * self.actor(s).log_prob(a).sum(-1)).mean())
        return log


class TD3BC:
    """TD3+BC (Fujimoto & Gu, 2021)."""

    def __init__(self, n_obs: int, n_action: int, width: int, device: str) -> None:
        self.actor = mlp(n_obs, n_action, width, nn.Tanh()).to(device)
        self.q = Twin(n_obs, n_action, width).to(device)
        self.target_actor: Any = frozen(self.actor)
        self.target: Any = frozen(self.q)
        self.optimizers = [torch.optim.Adam(net.parameters(), lr=LR) for net in (self.q, self.actor)]
        self.n = 0

    def update(self, batch: Batch) -> dict[str, float]:
        """Critics; every second time the policy and the targets."""
        self.n += 1
        s, a, s_ = batch["obs"], batch["action"], batch["next_obs"]
        with torch.no_grad():
            noise = (torch.randn_like(a) * 0.2).clamp(-0.5, 0.5)
            next_action = (self.target_actor(s_) + noise).clamp(-1, 1)
            y = batch["reward"] + (1 - batch["terminal"]) * GAMMA * torch.min(*self.target.both(s_, next_action))
        log = {"q": advance(self.optimizers[0], sum(F.mse_loss(q, y) for q in self.q.both(s, a)))}
        if self.n % 2 == 0:
            pi = self.actor(s)
            q = self.q.q1(torch.cat([s, pi], 1)).squeeze(-1)
            loss = -2.5 / q.abs().mean().detach() * q.mean() + F.mse_loss(pi, a)
            log["actor"] = advance(self.optimizers[1], loss)
            follow(self.target, self.q)
            follow(self.target_actor, self.actor)
        return log
