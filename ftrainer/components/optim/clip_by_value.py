"""Gradients clamped element by element."""

from __future__ import annotations

import torch

from ftrainer.components.fields import above
from ftrainer.functional.phases import Context
from ftrainer.functional.state import Tree
from registry.spec import component, traceable

from . import rules


@component
class ClipByValue:
    """Clamp every gradient to [-limit, limit], as `torch.nn.utils.clip_grad_value_`.

    Attributes:
        limit: the largest magnitude that is left alone.

    >>> grads = {"model": {"w": torch.tensor([3.0, -0.5])}}
    >>> ClipByValue(limit=1.0).update(grads, {}, grads, None)[0]["model"]["w"]
    tensor([ 1.0000, -0.5000])
    """

    limit: float = traceable(1.0, validator=above(0))

    def init(self, params: Tree) -> Tree:
        """Nothing to remember."""
        del params
        return {}

    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """Clamp."""
        del params, ctx
        return rules.mapped(lambda g: (torch.clamp(g, -self.limit, self.limit),), 1, grads)[0], opt_state
