"""Gradients divided by their running magnitude."""

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
class RMSprop:
    """Gradients over the root of their running mean square, as `torch.optim.RMSprop` (Tieleman & Hinton, 2012).

    Attributes:
        lr: learning rate.
        alpha: decay of the running mean of the squared gradient.
        eps: added to the root.
        weight_decay: L2 penalty, added to the gradient.
        momentum: factor of the running sum of updates; a plain 0 keeps none.
        centered: divide by the running standard deviation instead.
        groups: other values for parameters chosen by name.
    """

    lr: float = traceable(1e-2, validator=at_least(0))
    alpha: float = traceable(0.99, validator=between(0, 1))
    eps: float = traceable(1e-8, validator=at_least(0))
    weight_decay: float = traceable(0.0, validator=at_least(0))
    momentum: float = traceable(0.0, validator=at_least(0))
    centered: bool = False
    groups: Plain = groups_field()

    @init_by_group
    def init(self, params: Tree) -> Tree:
        """Zeros for the mean square `nu`, and for the mean `mu` and the running sum where they are kept."""
        names = ("mu", "nu") if self.centered else ("nu",)
        return {**{name: rules.zeros_like(params) for name in names}, **rules.init_momentum(self.momentum, params)}

    @update_by_group
    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """`-lr * g / (sqrt(v) + eps)`, or a running sum of such steps."""
        del ctx
        rules.check_momentum(self.momentum, opt_state)
        names, step_size = tuple(sorted(opt_state)), -self.lr

        def rule(g: Tensor, p: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
            state = dict(zip(names, kept, strict=True))
            g = rules.decayed(g, p, self.weight_decay)
            state["nu"] = rules.lerp(state["nu"], g * g, 1 - self.alpha)
            state |= {"mu": rules.lerp(state["mu"], g, 1 - self.alpha)} if self.centered else {}
            spread = state["nu"] - state["mu"] * state["mu"] if self.centered else state["nu"]
            step = g / (torch.sqrt(spread) + self.eps)
            if "momentum" in state:
                step = state["momentum"] = state["momentum"] * self.momentum + step
            return (step * step_size, *(state[name] for name in names))

        updates, *trees = rules.mapped(rule, 1 + len(names), grads, params, *(opt_state[name] for name in names))
        return updates, dict(zip(names, trees, strict=True))
