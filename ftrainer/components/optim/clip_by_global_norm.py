"""Gradients scaled down to a global norm."""

from __future__ import annotations

import torch
from torch import Tensor

from ftrainer.components.fields import above
from ftrainer.functional import pytree
from ftrainer.functional.phases import Context
from ftrainer.functional.state import Tree
from registry.spec import component, traceable

from . import rules


def global_norm(tree: Tree) -> Tensor:
    """The Euclidean norm of all leaves together, 0-d.

    >>> global_norm({"a": torch.tensor([3.0]), "b": torch.tensor([4.0])})
    tensor(5.)
    """
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(leaf) for leaf in pytree.leaves(tree)]))


@component
class ClipByGlobalNorm:
    """Scale all gradients by `min(1, max_norm / (norm + 1e-6))`, as `torch.nn.utils.clip_grad_norm_`.

    Attributes:
        max_norm: the norm that is left alone.

    >>> grads = {"model": {"w": torch.tensor([3.0, 4.0])}}
    >>> ClipByGlobalNorm(max_norm=1.0).update(grads, {}, grads, None)[0]["model"]["w"]
    tensor([0.6000, 0.8000])
    """

    max_norm: float = traceable(1.0, validator=above(0))

    def init(self, params: Tree) -> Tree:
        """Nothing to remember."""
        del params
        return {}

    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """One factor for every leaf."""
        del params, ctx
        factor = torch.clamp(self.max_norm / (global_norm(grads) + 1e-6), max=1.0)
        return rules.mapped(lambda g: (g * factor,), 1, grads)[0], opt_state
