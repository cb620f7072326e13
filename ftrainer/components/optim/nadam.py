"""Adam with Nesterov momentum."""

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
class NAdam:
    """Adam with Nesterov momentum, as `torch.optim.NAdam` (Dozat, 2016).

    Attributes:
        lr: learning rate.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the root of the second moment.
        weight_decay: L2 penalty, added to the gradient.
        momentum_decay: how fast the momentum warms up to the first beta.
        decoupled_weight_decay: take `lr * weight_decay` of every parameter away instead.
        groups: other values for parameters chosen by name.
    """

    lr: float = traceable(2e-3, validator=at_least(0))
    betas: tuple[float, float] = traceable((0.9, 0.999), validator=[length(2), fraction()])
    eps: float = traceable(1e-8, validator=at_least(0))
    weight_decay: float = traceable(0.0, validator=at_least(0))
    momentum_decay: float = traceable(4e-3, validator=at_least(0))
    decoupled_weight_decay: bool = False
    groups: Plain = groups_field()

    @init_by_group
    def init(self, params: Tree) -> Tree:
        """Zeros for both moments; `mu_product`, 0-d float64, is the product of all momenta so far."""
        product = torch.ones((), dtype=torch.float64, device=rules.device_of(params))
        return {"mu": rules.zeros_like(params), "nu": rules.zeros_like(params), "mu_product": product}

    @update_by_group
    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """`-lr * (a * g + b * m) / (sqrt(v_hat) + eps)`, with `a` and `b` from this momentum and the next."""
        t = rules.applied(ctx)
        now, following = self._momentum(t), self._momentum(t + 1)
        product = opt_state["mu_product"] * now
        root = torch.sqrt(1 - self.betas[1] ** t)
        on_grad = -self.lr * (1 - now) / (1 - product) * root
        on_mean = -self.lr * following / (1 - product * following) * root
        eps = self.eps * root
        penalty, decay = rules.penalty_and_decay(self.weight_decay, self.lr, self.decoupled_weight_decay)

        def rule(g: Tensor, p: Tensor, mu: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
            g = rules.decayed(g, p, penalty)
            mu, nu = rules.adam_moments(g, (mu, nu), self.betas)
            step = (g * on_grad + mu * on_mean) / (torch.sqrt(nu) + eps)
            return rules.decayed(step, p, decay), mu, nu

        updates, mu, nu = rules.mapped(rule, 3, grads, params, opt_state["mu"], opt_state["nu"])
        return updates, {"mu": mu, "nu": nu, "mu_product": product}

    def _momentum(self, t: Tensor) -> Tensor:
        return self.betas[0] * (1 - 0.5 * 0.96 ** (t * self.momentum_decay))
