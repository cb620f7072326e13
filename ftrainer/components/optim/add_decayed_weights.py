"""An L2 penalty as a link of a chain."""

from __future__ import annotations

from ftrainer.components.fields import at_least
from ftrainer.functional.phases import Context
from ftrainer.functional.state import Tree
from registry.spec import component, traceable

from . import rules


@component
class AddDecayedWeights:
    """`g + weight_decay * p`, as `optax.add_decayed_weights`: in front of an optimizer an L2 penalty.

    Attributes:
        weight_decay: how much of each parameter is added.
    """

    weight_decay: float = traceable(0.0, validator=at_least(0))

    def init(self, params: Tree) -> Tree:
        """Nothing to remember."""
        del params
        return {}

    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """Add."""
        del ctx
        return rules.mapped(lambda g, p: (rules.decayed(g, p, self.weight_decay),), 1, grads, params)[0], opt_state
