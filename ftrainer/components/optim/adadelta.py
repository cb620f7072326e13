"""Steps in the parameters' own units."""

from __future__ import annotations

import torch
from torch import Tensor

from ftrainer.components.fields import at_least, between
from ftrainer.functional.phases import Context
from ftrainer.functional.state import Tree
from registry.spec import Plain, component, traceable

from . import rules
from .groups import groups_field, init_by_group, update_by_group


@component
class Adadelta:
    """Steps whose size follows that of earlier ones, as `torch.optim.Adadelta` (Zeiler, 2012).

    Attributes:
        lr: factor of the finished step.
        rho: decay of the running means of the squared gradient and of the squared step.
        eps: added under both roots.
        weight_decay: L2 penalty, added to the gradient.
        groups: other values for parameters chosen by name.
    """

    lr: float = traceable(1.0, validator=at_least(0))
    rho: float = traceable(0.9, validator=between(0, 1))
    eps: float = traceable(1e-6, validator=at_least(0))
    weight_decay: float = traceable(0.0, validator=at_least(0))
    groups: Plain = groups_field()

    @init_by_group
    def init(self, params: Tree) -> Tree:
        """Zeros for the mean squares of the gradient, `nu`, and of the step, `delta`."""
        return {"nu": rules.zeros_like(params), "delta": rules.zeros_like(params)}

    @update_by_group
    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """`-lr * g * sqrt(delta + eps) / sqrt(nu + eps)`."""
        del ctx
        step_size = -self.lr

        def rule(g: Tensor, p: Tensor, nu: Tensor, delta: Tensor) -> tuple[Tensor, ...]:
            g = rules.decayed(g, p, self.weight_decay)
            nu = rules.lerp(nu, g * g, 1 - self.rho)
            step = torch.sqrt(delta + self.eps) / torch.sqrt(nu + self.eps) * g
            return step * step_size, nu, rules.lerp(delta, step * step, 1 - self.rho)

        updates, nu, delta = rules.mapped(rule, 3, grads, params, opt_state["nu"], opt_state["delta"])
        return updates, {"nu": nu, "delta": delta}
