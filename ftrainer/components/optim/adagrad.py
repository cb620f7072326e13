"""Gradients divided by all that came before."""

from __future__ import annotations

import torch
from torch import Tensor

from ftrainer.components.fields import at_least
from ftrainer.functional import pytree
from ftrainer.functional.phases import Context
from ftrainer.functional.state import Tree
from registry.spec import Plain, component, traceable

from . import rules
from .groups import groups_field, init_by_group, update_by_group


@component
class Adagrad:
    """Gradients over the root of the sum of their squares, as `torch.optim.Adagrad` (Duchi et al., 2011).

    Attributes:
        lr: learning rate.
        lr_decay: update `t` takes `lr / (1 + (t - 1) * lr_decay)`.
        weight_decay: L2 penalty, added to the gradient.
        initial_accumulator_value: what the sum begins with.
        eps: added to the root.
        groups: other values for parameters chosen by name.
    """

    lr: float = traceable(1e-2, validator=at_least(0))
    lr_decay: float = traceable(0.0, validator=at_least(0))
    weight_decay: float = traceable(0.0, validator=at_least(0))
    initial_accumulator_value: float = traceable(0.0, validator=at_least(0))
    eps: float = traceable(1e-10, validator=at_least(0))
    groups: Plain = groups_field()

    @init_by_group
    def init(self, params: Tree) -> Tree:
        """The sum of squares at its beginning."""
        return {"sum": pytree.map(lambda p: torch.zeros_like(p) + self.initial_accumulator_value, params)}

    @update_by_group
    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """`-lr_t * g / (sqrt(sum) + eps)`."""
        step_size = -self.lr / (1 + ctx.count.to(torch.float64) * self.lr_decay)

        def rule(g: Tensor, p: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
            g = rules.decayed(g, p, self.weight_decay)
            total = total + g * g
            return g / (torch.sqrt(total) + self.eps) * step_size, total

        updates, total = rules.mapped(rule, 2, grads, params, opt_state["sum"])
        return updates, {"sum": total}
