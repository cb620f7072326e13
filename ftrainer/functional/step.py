"""The step: gradients of phases, updates, followers, and a guard, as one pure function of (state, batch)."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor

from .state import Tree


class Context(NamedTuple):
    """What a transform or schedule may know besides the gradients; every entry a 0-d tensor.

    Attributes:
        step: applied updates of the run, int64.
        epoch: epochs finished, int64.
        count: applied updates of this phase before this one, int64 (bias correction).
        lr_scale: factor set by the loop (plateau), float64.
    """

    step: Tensor
    epoch: Tensor
    count: Tensor
    lr_scale: Tensor


class Transform(Protocol):
    """One part of an optimizer, as a pair of pure functions over nested dicts of tensors."""

    def init(self, params: Tree) -> Tree:
        """The state for these parameters: a pytree of tensors."""
        ...

    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """Updates to add to `params`, and the new state, same structure, shapes and dtypes."""
        ...
