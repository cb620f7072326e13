"""Adam by the largest gradient instead of the mean square."""

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
class Adamax:
    """Adam with the infinity norm, as `torch.optim.Adamax` (Kingma & Ba, 2015, section 7).

    Attributes:
        lr: learning rate.
        betas: decay of the running mean of the gradient and of its largest magnitude.
        eps: added to each magnitude.
        weight_decay: L2 penalty, added to the gradient.
        groups: other values for parameters chosen by name.
    """

    lr: float = traceable(2e-3, validator=at_least(0))
    betas: tuple[float, float] = traceable((0.9, 0.999), validator=[length(2), fraction()])
    eps: float = traceable(1e-8, validator=at_least(0))
    weight_decay: float = traceable(0.0, validator=at_least(0))
    groups: Plain = groups_field()

    @init_by_group
    def init(self, params: Tree) -> Tree:
        """Zeros for the mean `mu` and the magnitude `peak`."""
        return {"mu": rules.zeros_like(params), "peak": rules.zeros_like(params)}

    @update_by_group
    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """`-lr * m_hat / peak`."""
        step_size = -self.lr / (1 - self.betas[0] ** rules.applied(ctx))

        def rule(g: Tensor, p: Tensor, mu: Tensor, peak: Tensor) -> tuple[Tensor, ...]:
            g = rules.decayed(g, p, self.weight_decay)
            mu = rules.lerp(mu, g, 1 - self.betas[0])
            peak = torch.maximum(peak * self.betas[1], torch.abs(g) + self.eps)
            return mu / peak * step_size, mu, peak

        updates, mu, peak = rules.mapped(rule, 3, grads, params, opt_state["mu"], opt_state["peak"])
        return updates, {"mu": mu, "peak": peak}
