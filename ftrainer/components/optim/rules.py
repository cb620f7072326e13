"""Arithmetic that several optimizers share, in the order of operations of `torch.optim`.

Rules of one leaf put the leaf first and scalars, computed once outside, second: a replayed graph then runs each
operation over a list of all leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ftrainer.components.fields import is_off
from ftrainer.functional import pytree
from ftrainer.functional.phases import Context
from ftrainer.functional.state import Tree
from registry.issue import invalid


def applied(ctx: Context) -> Tensor:
    """The number of this update, from 1, as 0-d float64: bias corrections lose digits in float32."""
    return (ctx.count + 1).to(torch.float64)


def zeros_like(params: Tree) -> Tree:
    """A tree of zeros for one moment of every parameter."""
    return pytree.map(torch.zeros_like, params)


def mapped(rule: Callable[..., tuple[Tensor, ...]], outputs: int, *trees: Tree) -> tuple[Tree, ...]:
    """Apply a rule with several results leaf by leaf, and give one tree for each result.

    Args:
        rule: takes one leaf of each tree, returns `outputs` tensors.
        outputs: how many.
        trees: of one structure; results take the dtypes of the first one's leaves, since a 0-d float32 parameter
            times a 0-d float64 learning rate would be float64.
    """
    first, treedef = pytree.flatten(trees[0])
    rows = zip(first, *(pytree.leaves(tree) for tree in trees[1:]), strict=True)
    results = [tuple(_cast(x, row[0]) for x in rule(*row)) for row in rows]
    return tuple(pytree.unflatten(treedef, [result[i] for result in results]) for i in range(outputs))


def _cast(x: Tensor, like: Tensor) -> Tensor:
    return x if x.dtype == like.dtype else x.to(like.dtype)


def decayed(g: Tensor, p: Tensor, weight_decay: Any) -> Tensor:
    """`g + weight_decay * p`: a gradient with an L2 penalty's, or an update that shrinks by a negative decay."""
    return g if is_off(weight_decay) else g + p * weight_decay


def init_momentum(momentum: Any, params: Tree) -> Tree:
    """Zeros for a running sum, or nothing where a plain 0 asks for none."""
    return {} if is_off(momentum) else {"momentum": zeros_like(params)}


def check_momentum(momentum: Any, opt_state: Tree) -> None:
    """Raise where a sweep or schedule moves a momentum that the state was made without."""
    if "momentum" not in opt_state and not is_off(momentum):
        hint = "give the configuration's own `momentum` a value above 0"
        raise invalid("is swept or scheduled, but the state was made without it", "momentum", hint=hint)


def lerp(start: Tensor, end: Tensor, weight: Any) -> Tensor:
    """`start + weight * (end - start)`; one operation where the weight is a number."""
    return start + (end - start) * weight if isinstance(weight, Tensor) else torch.lerp(start, end, weight)


def adam_scalars(lr: Any, betas: tuple[Any, Any], eps: Any, ctx: Context) -> tuple[Tensor, Tensor]:
    """Step size, below zero, and epsilon that carry Adam's bias corrections, 0-d float64.

    `lr / c1 * m / (sqrt(v) / sqrt(c2) + eps)` is `(lr * sqrt(c2) / c1) * m / (sqrt(v) + eps * sqrt(c2))`, with a
    division fewer per element (end of section 2 of Kingma & Ba, 2015).
    """
    t = applied(ctx)
    c1, c2 = 1 - betas[0] ** t, torch.sqrt(1 - betas[1] ** t)
    return -lr * c2 / c1, eps * c2


def device_of(params: Tree) -> torch.device:
    """Where the parameters are."""
    return next((leaf.device for leaf in pytree.leaves(params)), torch.device("cpu"))


def adam_names(amsgrad: bool) -> tuple[str, ...]:
    """The moments that Adam keeps, in the order of `adam_moments`."""
    return ("mu", "nu", "nu_max") if amsgrad else ("mu", "nu")


def adam_moments(g: Tensor, moments: tuple[Tensor, ...], betas: tuple[Any, Any]) -> tuple[Tensor, ...]:
    """The next running means of `g` and of its square, and where a third is kept, the largest second one so far."""
    mu = lerp(moments[0], g, 1 - betas[0])
    nu = lerp(moments[1], g * g, 1 - betas[1])
    return (mu, nu, torch.maximum(moments[2], nu)) if len(moments) == 3 else (mu, nu)


def penalty_and_decay(weight_decay: Any, lr: Any, decoupled: bool) -> tuple[Any, Any]:
    """How much of the parameter goes into the gradient, and how much into the update: one of them nothing."""
    return (0.0, -lr * weight_decay) if decoupled else (weight_decay, 0.0)
