"""Transforms in a row."""

from __future__ import annotations

from ftrainer.functional.phases import Context, Transform
from ftrainer.functional.state import Tree
from registry.issue import invalid
from registry.spec import component

from .averaged import eval_params


@component
class Chain:
    """Each transform takes the one before's updates as its gradients, as `optax.chain`.

    The last ones decide direction and length: put clipping in front of the optimizer.

    Attributes:
        transforms: at least one.

    >>> from .clip_by_value import ClipByValue
    >>> from .sgd import SGD
    >>> Chain(transforms=[ClipByValue(limit=1.0), SGD(lr=0.1)]).init({})
    {'0': {}, '1': {}}
    """

    transforms: tuple[Transform, ...]

    def __attrs_post_init__(self) -> None:
        if not self.transforms:
            raise invalid("a chain without links", "transforms", expected="at least one transform")

    def init(self, params: Tree) -> Tree:
        """One state for each link, by its position."""
        return {str(i): transform.init(params) for i, transform in enumerate(self.transforms)}

    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """Pass the gradients through every link."""
        states = {}
        for i, transform in enumerate(self.transforms):
            grads, states[str(i)] = transform.update(grads, opt_state[str(i)], params, ctx)
        return grads, states

    def eval_params(self, opt_state: Tree, params: Tree) -> Tree:
        """What the links would have evaluated, in order."""
        for i, transform in enumerate(self.transforms):
            params = eval_params(transform, opt_state[str(i)], params)
        return params
