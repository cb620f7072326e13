"""Signs of a momentum."""

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
class Lion:
    """The sign of an interpolated momentum (Chen et al., 2023, "Symbolic discovery of optimization algorithms").

    Attributes:
        lr: learning rate, a third to a tenth of what AdamW wants.
        betas: weight of the momentum in the step, and its decay.
        weight_decay: each step takes `lr * weight_decay` of every parameter away.
        groups: other values for parameters chosen by name.
    """

    lr: float = traceable(1e-4, validator=at_least(0))
    betas: tuple[float, float] = traceable((0.9, 0.99), validator=[length(2), fraction()])
    weight_decay: float = traceable(0.0, validator=at_least(0))
    groups: Plain = groups_field()

    @init_by_group
    def init(self, params: Tree) -> Tree:
        """Zeros for the momentum."""
        return {"mu": rules.zeros_like(params)}

    @update_by_group
    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """`-lr * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * p)`."""
        del ctx
        step_size = -self.lr

        def rule(g: Tensor, p: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
            direction = torch.sign(rules.lerp(mu, g, 1 - self.betas[0]))
            return rules.decayed(direction, p, self.weight_decay) * step_size, rules.lerp(mu, g, 1 - self.betas[1])

        updates, mu = rules.mapped(rule, 2, grads, params, opt_state["mu"])
        return updates, {"mu": mu}
