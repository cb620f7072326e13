"""Update rules as their papers state them, one tensor at a time, to compare with number for number."""

from __future__ import annotations

import torch
from torch import Tensor


class Lion:
    """Algorithm 2 of Chen et al., 2023, "Symbolic discovery of optimization algorithms"."""

    def __init__(self, theta: Tensor, *, lr: float, beta1: float, beta2: float, decay: float):
        self.theta, self.lr, self.beta1, self.beta2, self.decay = theta, lr, beta1, beta2, decay
        self.m = torch.zeros_like(theta)

    def step(self, g: Tensor) -> None:
        c = self.beta1 * self.m + (1 - self.beta1) * g
        self.theta = self.theta - self.lr * (torch.sign(c) + self.decay * self.theta)
        self.m = self.beta2 * self.m + (1 - self.beta2) * g


class ScheduleFreeAdamW:
    """Algorithm 1 of Defazio et al., 2024, "The Road Less Scheduled": gradients and decay at y, averages weighted by
    the square of the largest rate so far, warm-up by `lr * min(1, t / warmup)`."""

    def __init__(self, theta: Tensor, *, lr: float, beta1: float, beta2: float, decay: float, warmup: int, eps: float):
        self.x = self.z = theta
        self.lr, self.beta1, self.beta2, self.decay, self.warmup, self.eps = lr, beta1, beta2, decay, warmup, eps
        self.v, self.t, self.weights, self.largest = torch.zeros_like(theta), 0, 0.0, 0.0

    def y(self) -> Tensor:
        return (1 - self.beta1) * self.z + self.beta1 * self.x

    def rate(self) -> float:
        return self.lr * min(1.0, (self.t + 1) / self.warmup)

    def step(self, g: Tensor) -> None:
        y, lr = self.y(), self.rate()
        self.t += 1
        self.largest = max(self.largest, lr)
        self.v = self.beta2 * self.v + (1 - self.beta2) * g * g
        direction = g / (torch.sqrt(self.v / (1 - self.beta2**self.t)) + self.eps) + self.decay * y
        self.z = self.z - lr * direction
        self.weights += self.largest**2
        c = self.largest**2 / self.weights
        self.x = (1 - c) * self.x + c * self.z


def muon_direction(matrix: Tensor, steps: int = 5, eps: float = 1e-7) -> Tensor:
    """Five Newton-Schulz steps of Jordan, 2024, in the matrix's own arithmetic."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / matrix.norm().clamp(min=eps)
    x = x.mT if matrix.shape[0] > matrix.shape[1] else x
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return x.mT if matrix.shape[0] > matrix.shape[1] else x
