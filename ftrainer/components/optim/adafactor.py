"""Second moments of matrices by row and column."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from ftrainer.components.fields import at_least, between, length
from ftrainer.functional import pytree
from ftrainer.functional.phases import Context
from ftrainer.functional.state import Tree
from registry.issue import invalid
from registry.spec import Plain, component, traceable

from . import rules
from .groups import Leaf, groups_field, init_by_group, merge, select, update_by_group


@component
class Adafactor:
    """Adam's second moment in sublinear memory, as `torch.optim.Adafactor` (Shazeer & Stern, 2018).

    A parameter of two dimensions or more keeps the mean square of each row and column of its last two, another one
    keeps its own elements'.

    Attributes:
        lr: bound of the relative step size, which falls as `1 / sqrt(t)` once that is smaller.
        beta2_decay: update `t` weighs `t ** beta2_decay` in the second moment.
        eps: smallest second moment, null for the dtype's own, and smallest scale of a parameter.
        d: root mean square at which an update is clipped.
        weight_decay: each step takes `lr * weight_decay` of every parameter away.
        groups: other values for parameters chosen by name.
    """

    lr: float = traceable(1e-2, validator=at_least(0))
    beta2_decay: float = traceable(-0.8, validator=between(-1e3, 0))
    eps: tuple[float | None, float] = attrs.field(default=(None, 1e-3), validator=length(2))
    d: float = traceable(1.0, validator=at_least(1))
    weight_decay: float = traceable(0.0, validator=at_least(0))
    groups: Plain = groups_field()

    def __attrs_post_init__(self) -> None:
        for i, value in enumerate(self.eps):
            if not (value is None and i == 0) and not (isinstance(value, (int, float)) and value >= 0):
                raise invalid("out of range", "eps", i, found=repr(value), expected="a number of at least 0")

    @init_by_group
    def init(self, params: Tree) -> Tree:
        """Zeros: `row` (…, n, 1) and `column` (…, 1, m) of matrices, `nu` of the rest."""
        matrices, others = split(params, params)
        return {
            "row": pytree.map(lambda p: torch.zeros_like(p[..., :1]), matrices),
            "column": pytree.map(lambda p: torch.zeros_like(p[..., :1, :]), matrices),
            "nu": rules.zeros_like(others),
        }

    @update_by_group
    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """`-alpha * u / max(1, rms(u) / d)`, where `u = g / sqrt(v)` and `alpha` follows the parameter's scale."""
        t = rules.applied(ctx)
        weight, step = t**self.beta2_decay, torch.clamp(1 / torch.sqrt(t), max=self.lr)

        def factored(g: Tensor, p: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, ...]:
            row = rules.lerp(row, torch.mean(g * g, -1, keepdim=True), weight)
            column = rules.lerp(column, torch.mean(g * g, -2, keepdim=True), weight)
            floor = torch.clamp(torch.mean(row, -2, keepdim=True), min=self._smallest(p))
            return self._step(g, p, row * column / floor, step), row, column

        def whole(g: Tensor, p: Tensor, nu: Tensor) -> tuple[Tensor, ...]:
            nu = rules.lerp(nu, g * g, weight)
            return self._step(g, p, nu, step), nu

        (g_matrix, g_other), (p_matrix, p_other) = split(grads, params), split(params, params)
        first, row, column = rules.mapped(factored, 3, g_matrix, p_matrix, opt_state["row"], opt_state["column"])
        second, nu = rules.mapped(whole, 2, g_other, p_other, opt_state["nu"])
        return merge(params, [first, second]), {"row": row, "column": column, "nu": nu}

    def _step(self, g: Tensor, p: Tensor, moment: Tensor, step: Tensor) -> Tensor:
        u = g * torch.rsqrt(torch.clamp(moment, min=self._smallest(p) ** 2))
        clipped = torch.clamp(rms(u) / self.d, min=1.0)
        size = step * torch.clamp(rms(p), min=self.eps[1])
        return rules.decayed(u * (-size / clipped), p, -self.lr * self.weight_decay)

    def _smallest(self, p: Tensor) -> float:
        return torch.finfo(p.dtype).eps if self.eps[0] is None else self.eps[0]


def rms(x: Tensor) -> Tensor:
    """The root of the mean square, 0-d."""
    return torch.linalg.vector_norm(x) / x.numel() ** 0.5


def split(tree: Tree, params: Tree) -> tuple[Tree, Tree]:
    """The leaves whose parameter has two dimensions or more, and the others."""
    chosen: list[list[Leaf]] = [[], []]
    for role, by in params.items():
        for name, p in by.items():
            chosen[p.dim() < 2].append((role, name))
    return select(tree, chosen[0]), select(tree, chosen[1])
