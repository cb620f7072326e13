"""Adam."""

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
class Adam:
    """Adaptive moments with an L2 penalty in the gradient, as `torch.optim.Adam` (Kingma & Ba, 2015).

    Attributes:
        lr: learning rate.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the root of the second moment.
        weight_decay: L2 penalty, added to the gradient.
        amsgrad: divide by the largest second moment so far (Reddi et al., 2018).
        groups: other values for parameters chosen by name.

    >>> sorted(Adam().init({"model": {"w": torch.ones(2)}}))
    ['mu', 'nu']
    """

    lr: float = traceable(1e-3, validator=at_least(0))
    betas: tuple[float, float] = traceable((0.9, 0.999), validator=[length(2), fraction()])
    eps: float = traceable(1e-8, validator=at_least(0))
    weight_decay: float = traceable(0.0, validator=at_least(0))
    amsgrad: bool = False
    groups: Plain = groups_field()

    @init_by_group
    def init(self, params: Tree) -> Tree:
        """Zeros for both moments (`mu`, `nu`), and for the largest second one (`nu_max`) under `amsgrad`."""
        return {name: rules.zeros_like(params) for name in rules.adam_names(self.amsgrad)}

    @update_by_group
    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """`-lr * m_hat / (sqrt(v_hat) + eps)`."""
        step_size, eps = rules.adam_scalars(self.lr, self.betas, self.eps, ctx)

        def rule(g: Tensor, p: Tensor, *moments: Tensor) -> tuple[Tensor, ...]:
            moments = rules.adam_moments(rules.decayed(g, p, self.weight_decay), moments, self.betas)
            return (moments[0] / (torch.sqrt(moments[-1]) + eps) * step_size, *moments)

        names = rules.adam_names(self.amsgrad)
        updates, *trees = rules.mapped(rule, 1 + len(names), grads, params, *(opt_state[name] for name in names))
        return updates, dict(zip(names, trees, strict=True))
