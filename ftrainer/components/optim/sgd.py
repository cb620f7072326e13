"""Gradient descent with momentum."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ftrainer.components.fields import at_least, is_off, number
from ftrainer.functional.phases import Context
from ftrainer.functional.state import Tree
from registry.issue import invalid
from registry.spec import Plain, component, traceable

from . import rules
from .groups import groups_field, init_by_group, update_by_group


@component
class SGD:
    """Stochastic gradient descent, as `torch.optim.SGD` (Sutskever et al., 2013, for the momentum).

    Attributes:
        lr: learning rate.
        momentum: factor of the running sum of gradients; a plain 0 keeps none.
        dampening: how much of each gradient the running sum leaves out, from the second step on.
        nesterov: look ahead along the momentum; wants a momentum and no dampening.
        weight_decay: L2 penalty, added to the gradient.
        groups: other values for parameters chosen by name.

    >>> params = {"model": {"w": torch.ones(2)}}
    >>> SGD(lr=0.1).init(params)
    {}
    """

    lr: float = traceable(1e-3, validator=at_least(0))
    momentum: float = traceable(0.0, validator=at_least(0))
    dampening: float = traceable(0.0, validator=number())
    weight_decay: float = traceable(0.0, validator=at_least(0))
    nesterov: bool = False
    groups: Plain = groups_field()

    def __attrs_post_init__(self) -> None:
        if self.nesterov and (is_off(self.momentum) or not is_off(self.dampening)):
            raise invalid("Nesterov needs a momentum and no dampening", "nesterov", hint="set `momentum`")

    @init_by_group
    def init(self, params: Tree) -> Tree:
        """Zeros for the running sum, or nothing without momentum."""
        return rules.init_momentum(self.momentum, params)

    @update_by_group
    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """`-lr * buf`, where `buf = momentum * buf + (1 - dampening) * g` starts as the first gradient."""
        step_size = -self.lr
        decayed = functools.partial(rules.decayed, weight_decay=self.weight_decay)
        rules.check_momentum(self.momentum, opt_state)
        if "momentum" not in opt_state:
            return rules.mapped(lambda g, p: (decayed(g, p) * step_size,), 1, grads, params)[0], opt_state
        share = None if is_off(self.dampening) else 1 - self.dampening * (ctx.count > 0).to(torch.float64)

        def rule(g: Tensor, buf: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
            g = decayed(g, p)
            buf = buf * self.momentum + (g if share is None else g * share)
            return (g + buf * self.momentum if self.nesterov else buf) * step_size, buf

        updates, momentum = rules.mapped(rule, 2, grads, opt_state["momentum"], params)
        return updates, {"momentum": momentum}
