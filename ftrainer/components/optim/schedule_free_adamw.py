"""AdamW that needs no schedule."""

from __future__ import annotations

import torch
from torch import Tensor

from ftrainer.components.fields import at_least, fraction, length, number
from ftrainer.functional import pytree
from ftrainer.functional.phases import Context
from ftrainer.functional.state import Tree
from registry.issue import invalid
from registry.spec import Plain, component, traceable

from . import rules
from .groups import eval_by_group, groups_field, init_by_group, update_by_group


@component
class ScheduleFreeAdamW:
    """Averaging in place of a schedule (Defazio et al., 2024, "The Road Less Scheduled").

    Gradients are taken at `y`, between the iterate `z` and its average `x`; `params` hold `y`, and evaluation uses `x`.
    Wants no schedule but a `schedule.warmup`.

    Attributes:
        lr: learning rate, rather larger than AdamW's.
        betas: share of `x` in `y`, and decay of the running mean of the squared gradient.
        eps: added to the root of the second moment.
        weight_decay: decay at `y`.
        r: an iterate's weight in the average grows as `t ** r`.
        weight_lr_power: and with this power of the largest learning rate so far.
        groups: other values for parameters chosen by name.
    """

    lr: float = traceable(2.5e-3, validator=at_least(0))
    betas: tuple[float, float] = traceable((0.9, 0.999), validator=[length(2), fraction()])
    eps: float = traceable(1e-8, validator=at_least(0))
    weight_decay: float = traceable(0.0, validator=at_least(0))
    r: float = traceable(0.0, validator=number())
    weight_lr_power: float = traceable(2.0, validator=number())
    groups: Plain = groups_field()

    def __attrs_post_init__(self) -> None:
        if rules.is_off(self.betas[0]):
            raise invalid("the average cannot be told from y", "betas", 0, found="0", expected="a number above 0")

    @init_by_group
    def init(self, params: Tree) -> Tree:
        """The iterate `z`, the second moment, and the largest learning rate and sum of weights, 0-d float64."""
        zero = torch.zeros((), dtype=torch.float64, device=rules.device_of(params))
        z = pytree.map(torch.clone, params)
        return {"z": z, "nu": rules.zeros_like(params), "lr_max": zero, "weight_sum": zero.clone()}

    @update_by_group
    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """`z <- z - lr * d`, `y <- (1 - c) * y + c * z - lr * (1 - beta1 * (1 - c)) * d` with Adam's direction `d`."""
        t = rules.applied(ctx)
        root = torch.sqrt(1 - self.betas[1] ** t)
        lr_max = torch.maximum(opt_state["lr_max"], self.lr * torch.ones_like(t))
        weight = t**self.r * lr_max**self.weight_lr_power
        total = opt_state["weight_sum"] + weight
        share = torch.where(total > 0, weight / torch.where(total > 0, total, 1.0), 0.0)
        eps, along = self.eps * root, self.lr * (self.betas[0] * (1 - share) - 1)

        def rule(g: Tensor, y: Tensor, z: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
            nu = rules.lerp(nu, g * g, 1 - self.betas[1])
            d = rules.decayed(g / (torch.sqrt(nu) + eps) * root, y, self.weight_decay)
            return (z - y) * share + d * along, z - d * self.lr, nu

        updates, z, nu = rules.mapped(rule, 3, grads, params, opt_state["z"], opt_state["nu"])
        return updates, {"z": z, "nu": nu, "lr_max": lr_max, "weight_sum": total}

    @eval_by_group
    def eval_params(self, opt_state: Tree, params: Tree) -> Tree:
        """The average `x = y + (1 - 1 / beta1) * (z - y)`."""
        return rules.mapped(lambda y, z: (y + (z - y) * (1 - 1 / self.betas[0]),), 1, params, opt_state["z"])[0]
