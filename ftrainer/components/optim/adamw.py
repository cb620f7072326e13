"""Adam with decoupled weight decay."""

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
class AdamW:
    """Adam whose weight decay acts on the parameters, as `torch.optim.AdamW` (Loshchilov & Hutter, 2019).

    Attributes:
        lr: learning rate; it scales the decay too.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the root of the second moment.
        weight_decay: each step takes `lr * weight_decay` of every parameter away.
        amsgrad: divide by the largest second moment so far (Reddi et al., 2018).
        groups: other values for parameters chosen by name.

    >>> optimizer = AdamW(lr=1e-3, groups=[{"match": "*.bias", "weight_decay": 0}])
    >>> sorted(optimizer.init({"model": {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)}}))
    ['0', 'rest']
    """

    lr: float = traceable(1e-3, validator=at_least(0))
    betas: tuple[float, float] = traceable((0.9, 0.999), validator=[length(2), fraction()])
    eps: float = traceable(1e-8, validator=at_least(0))
    weight_decay: float = traceable(1e-2, validator=at_least(0))
    amsgrad: bool = False
    groups: Plain = groups_field()

    @init_by_group
    def init(self, params: Tree) -> Tree:
        """Zeros for both moments (`mu`, `nu`), and for the largest second one (`nu_max`) under `amsgrad`."""
        return {name: rules.zeros_like(params) for name in rules.adam_names(self.amsgrad)}

    @update_by_group
    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """`-lr * m_hat / (sqrt(v_hat) + eps) - lr * weight_decay * p`."""
        step_size, eps = rules.adam_scalars(self.lr, self.betas, self.eps, ctx)
        decay = -self.lr * self.weight_decay

        def rule(g: Tensor, p: Tensor, *moments: Tensor) -> tuple[Tensor, ...]:
            moments = rules.adam_moments(g, moments, self.betas)
            update = moments[0] / (torch.sqrt(moments[-1]) + eps) * step_size
            return (rules.decayed(update, p, decay), *moments)

        names = rules.adam_names(self.amsgrad)
        updates, *trees = rules.mapped(rule, 1 + len(names), grads, params, *(opt_state[name] for name in names))
        return updates, dict(zip(names, trees, strict=True))
