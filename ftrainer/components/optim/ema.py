"""A running mean of what passes through."""

from __future__ import annotations

from torch import Tensor

from ftrainer.components.fields import fraction
from ftrainer.functional.phases import Context
from ftrainer.functional.state import Tree
from registry.spec import component, traceable

from . import rules


@component
class EMA:
    """The exponential moving average of gradients or updates, as `optax.ema`.

    For averaged weights, which evaluation uses, see the learner's `ema_decay`.

    Attributes:
        decay: of the average.
        debias: divide by `1 - decay ** t`, so that the first steps are not too small.
    """

    decay: float = traceable(0.9, validator=fraction())
    debias: bool = True

    def init(self, params: Tree) -> Tree:
        """Zeros for the average."""
        return {"ema": rules.zeros_like(params)}

    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """The average in the gradients' place."""
        del params
        correction = 1 - self.decay ** rules.applied(ctx)

        def rule(g: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
            mean = rules.lerp(mean, g, 1 - self.decay)
            return mean / correction if self.debias else mean, mean

        updates, ema = rules.mapped(rule, 2, grads, opt_state["ema"])
        return updates, {"ema": ema}
