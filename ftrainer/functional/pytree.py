"""The one module that knows optree: every call passes our namespace, so no attrs class is ever silently a leaf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optree
from optree.integrations.attrs import register_node

NAMESPACE = "ftrainer"
TreeDef = optree.PyTreeSpec


def register(cls: type) -> type:
    """Register an attrs class as a pytree node; fields with `metadata={"pytree_node": False}` are static."""
    register_node(cls, namespace=NAMESPACE)
    return cls


def flatten(tree: Any) -> tuple[list[Any], TreeDef]:
    """Leaves in a fixed order, and the structure that puts them back. `None` is structure, not a leaf."""
    return optree.tree_flatten(tree, namespace=NAMESPACE)


def unflatten(treedef: TreeDef, leaves: Any) -> Any:
    """The inverse of `flatten`."""
    return optree.tree_unflatten(treedef, leaves)


def structure(tree: Any) -> TreeDef:
    """The structure alone."""
    return optree.tree_structure(tree, namespace=NAMESPACE)


def leaves(tree: Any) -> list[Any]:
    """The leaves alone."""
    return optree.tree_leaves(tree, namespace=NAMESPACE)


def map(fn: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Apply `fn` leaf by leaf; further trees have the first one's structure as a prefix."""
    return optree.tree_map(fn, tree, *rest, namespace=NAMESPACE)


def map_with_path(fn: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`fn(path, leaf, *others)`, `path` as `paths` writes it."""
    return optree.tree_map_with_path(lambda p, *xs: fn(render_path(p), *xs), tree, *rest, namespace=NAMESPACE)


def paths(tree: Any) -> list[str]:
    """One name for each leaf, in the order of `leaves`.

    >>> paths({"b": 1, "a": (2, 3)})
    ['a/0', 'a/1', 'b']
    """
    return [render_path(path) for path in optree.tree_paths(tree, namespace=NAMESPACE)]


def render_path(path: tuple[Any, ...]) -> str:
    """A leaf's place as text, parts joined by slashes."""
    return "/".join(str(part) for part in path)
