"""A transform for some parameters only."""

from __future__ import annotations

from ftrainer.functional.phases import Context, Transform
from ftrainer.functional.state import Tree
from registry.issue import invalid
from registry.spec import component

from .averaged import eval_params
from .groups import Leaf, assign, matching, merge, select


@component
class Mask:
    """A transform that sees the parameters chosen by name; the others' gradients pass unchanged, as `optax.masked`.

    Attributes:
        transform: what the chosen ones go through.
        match: patterns of dotted names; each must match something.
        invert: choose the parameters that match none.
    """

    transform: Transform
    match: str | tuple[str, ...]
    invert: bool = False

    def __attrs_post_init__(self) -> None:
        if not self.match:
            raise invalid("no pattern", "match", expected='a pattern such as "*.weight"')

    def init(self, params: Tree) -> Tree:
        """The transform's state for the chosen ones.

        Raises:
            ConfigError: a pattern matches nothing.
        """
        return self.transform.init(select(params, self._chosen(params)))

    def update(self, grads: Tree, opt_state: Tree, params: Tree, ctx: Context) -> tuple[Tree, Tree]:
        """Transform the chosen ones."""
        chosen = self._chosen(params)
        updates, opt_state = self.transform.update(select(grads, chosen), opt_state, select(params, chosen), ctx)
        return merge(params, [updates], default=grads), opt_state

    def eval_params(self, opt_state: Tree, params: Tree) -> Tree:
        """The transform's own for the chosen ones."""
        part = eval_params(self.transform, opt_state, select(params, self._chosen(params)))
        return merge(params, [part], default=params)

    def _chosen(self, params: Tree) -> list[Leaf]:
        patterns = (self.match,) if isinstance(self.match, str) else self.match
        matched = [leaf for pattern in patterns for leaf in matching(pattern, params, "match")]
        (taken,), left = assign([matched], params)
        return left if self.invert else taken
