"""Momentum made orthogonal."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import above, at_least, between, count, length, number, one_of
from ftrainer.functional.phases import Context
from ftrainer.functional.state import Tree
from registry.issue import invalid
from registry.spec import Plain, component, traceable

from . import rules
from .groups import groups_field, init_by_group, update_by_group

ADJUST = ("original", "match_rms_adamw")


@component
class Muon:
    """The momentum of a hidden matrix, its singular values pushed towards one, as `torch.optim.Muon` (Jordan, 2024).

    For matrices only: give embeddings, heads, biases and norms to another transform by `optim.partition`.

    Attributes:
        lr: learning rate.
        weight_decay: each step takes `lr * weight_decay` of every parameter away.
        momentum: decay of the running mean of the gradient.
        nesterov: look ahead along it.
        ns_coefficients: of the quintic Newton-Schulz iteration.
        eps: smallest norm that a matrix is divided by.
        ns_steps: iterations.
        adjust_lr_fn: how the rate follows the shape (n, m): `original` by `sqrt(max(1, n / m))`, `match_rms_adamw`
            by `0.2 * sqrt(max(n, m))`; null is `original`.
        dtype: the iteration's arithmetic, `bfloat16` (torch's own), `float32` or `float64`.
        groups: other values for parameters chosen by name.
    """

    lr: float = traceable(1e-3, validator=at_least(0))
    weight_decay: float = traceable(0.1, validator=at_least(0))
    momentum: float = traceable(0.95, validator=between(0, 1))
    nesterov: bool = True
    ns_coefficients: tuple[float, float, float] = attrs.field(
        default=(3.4445, -4.775, 2.0315), validator=[length(3), number()]
    )
    eps: float = traceable(1e-7, validator=above(0))
    ns_steps: int = attrs.field(default=5, validator=count())
    adjust_lr_fn: str | None = attrs.field(default=None, validator=one_of(*ADJUST, None))
    dtype: str = attrs.field(default="bfloat16", validator=one_of("bfloat16", "float32", "float64"))
    groups: Plain = groups_field()

    @init_by_group
    def init(self, params: Tree) -> Tree:
        """Zeros for the momentum.

        Raises:
            ConfigError: a parameter is no matrix.
        """
        others = [name for by in params.values() for name, p in by.items() if p.dim() != 2]
        if others:
            hint = "give the others to another transform by optim.partition"
            raise invalid(
                "Muon is for matrices", found=", ".join(others), expected="parameters of shape (n, m)", hint=hint
            )
        return {"mu": rules.zeros_like(params)}

    @update_by_group
    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """`-lr * ratio * orthogonal(m) - lr * weight_decay * p`."""
        del ctx

        def rule(g: Tensor, p: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
            mu = rules.lerp(mu, g, 1 - self.momentum)
            direction = rules.lerp(g, mu, self.momentum) if self.nesterov else mu
            step = self._orthogonal(direction).to(p.dtype) * (-self.lr * self._ratio(p))
            return rules.decayed(step, p, -self.lr * self.weight_decay), mu

        updates, mu = rules.mapped(rule, 2, grads, params, opt_state["mu"])
        return updates, {"mu": mu}

    def _ratio(self, p: Tensor) -> float:
        n, m = p.shape
        return 0.2 * math.sqrt(max(n, m)) if self.adjust_lr_fn == "match_rms_adamw" else math.sqrt(max(1.0, n / m))

    def _orthogonal(self, matrix: Tensor) -> Tensor:
        """Newton-Schulz on the side that makes the smaller square."""
        tall = matrix.shape[0] > matrix.shape[1]
        a, b, c = self.ns_coefficients
        x = matrix.to(getattr(torch, self.dtype))
        x = x.T if tall else x
        x = x / torch.clamp(torch.linalg.vector_norm(x), min=self.eps)
        for _ in range(self.ns_steps):
            square = x @ x.T
            x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
        return x.T if tall else x
