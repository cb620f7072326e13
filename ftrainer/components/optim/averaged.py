"""Which parameters to evaluate: transforms that average them say so by a method `eval_params`."""

from __future__ import annotations

from ftrainer.functional.phases import Transform
from ftrainer.functional.state import Tree


def eval_params(transform: Transform, opt_state: Tree, params: Tree) -> Tree:
    """The parameters that evaluation and export should use; `params` themselves for most transforms."""
    chosen = getattr(transform, "eval_params", None)
    return params if chosen is None else chosen(opt_state, params)
