"""Adam that rectifies the variance of its first steps."""

from __future__ import annotations

import torch
from torch import Tensor

from ftrainer.components.fields import at_least, fraction, length
from ftrainer.functional.phases import Context
from ftrainer.functional.state import Tree
from registry.spec import Plain, component, traceable

from . import rules
from .groups import groups_field, init_by_group, update_by_group


@component
class RAdam:
    """Rectified Adam, as `torch.optim.RAdam` (Liu et al., 2020).

    Attributes:
        lr: learning rate.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the root of the second moment.
        weight_decay: L2 penalty, added to the gradient.
        decoupled_weight_decay: take `lr * weight_decay` of every parameter away instead.
        groups: other values for parameters chosen by name.
    """

    lr: float = traceable(1e-3, validator=at_least(0))
    betas: tuple[float, float] = traceable((0.9, 0.999), validator=[length(2), fraction()])
    eps: float = traceable(1e-8, validator=at_least(0))
    weight_decay: float = traceable(0.0, validator=at_least(0))
    decoupled_weight_decay: bool = False
    groups: Plain = groups_field()

    @init_by_group
    def init(self, params: Tree) -> Tree:
        """Zeros for both moments."""
        return {"mu": rules.zeros_like(params), "nu": rules.zeros_like(params)}

    @update_by_group
    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """`-lr * m_hat * r / (sqrt(v_hat) + eps)` once the variance is known well enough, `-lr * m_hat` before."""
        adaptive, plain = self._scales(rules.applied(ctx))
        penalty, decay = rules.penalty_and_decay(self.weight_decay, self.lr, self.decoupled_weight_decay)

        def rule(g: Tensor, p: Tensor, mu: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
            g = rules.decayed(g, p, penalty)
            mu, nu = rules.adam_moments(g, (mu, nu), self.betas)
            step = mu / (torch.sqrt(nu) + self.eps) * adaptive + mu * plain
            return rules.decayed(step, p, decay), mu, nu

        updates, mu, nu = rules.mapped(rule, 3, grads, params, opt_state["mu"], opt_state["nu"])
        return updates, {"mu": mu, "nu": nu}

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The step sizes of the adaptive and of the plain update, below zero, and one of them zero."""
        beta1, beta2 = self.betas
        c1, c2 = 1 - beta1**t, 1 - beta2**t
        longest = 2 / (1 - beta2) - 1
        length_now = longest - 2 * t * beta2**t / c2
        known = length_now > 5
        ratio = (length_now - 4) * (length_now - 2) * longest / ((longest - 4) * (longest - 2) * length_now)
        rectified = torch.sqrt(torch.clamp(ratio, min=0.0)) * torch.sqrt(c2)
        step = -self.lr / c1
        return torch.where(known, step * rectified, 0.0), torch.where(known, 0.0, step)
