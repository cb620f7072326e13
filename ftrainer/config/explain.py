"""The way of one value, stage by stage."""

from __future__ import annotations

from registry.issue import ConfigError, ConfigPath, Issue, dotted, nearest

from .node import Node, Origin, summary
from .overrides import split_path

_VERBS = {
    "file": "written",
    "override": "overridden",
    "anchor": "aliased from",
    "default": "filled in",
    "python": "given from Python",
    "template": "taken from template",
    "interpolation": "interpolated from",
    "append": "appended to by",
    "prepend": "prepended to by",
    "keyed": "merged by key by",
}


def node_at(root: Node, path: str) -> tuple[ConfigPath, Node]:
    """The node at a dotted path.

    Raises:
        ConfigError: nothing stands there; the error names the nearest keys.
    """
    try:
        parts, _ = split_path(path)
    except ValueError as error:
        raise ConfigError([Issue(problem=f"the path {error}")]) from None
    node = root
    at: ConfigPath = ()
    for part in parts:
        children = {str(key): (key, child) for key, child in node.children()}
        if part not in children:
            known = ", ".join(children) or "nothing below it"
            near = nearest(part, children)
            raise ConfigError([Issue(path=(*at, part), problem="no such key", expected=known, nearest=near)])
        key, node = children[part]
        at = (*at, key)
    return at, node


def explain(root: Node, path: str) -> str:
    """One line for the value, then one for each stage that made it, oldest first.

    Raises:
        ConfigError: nothing stands at the path.
    """
    at, node = node_at(root, path)
    return "\n".join([f"{dotted(at)} = {summary(node)}", *(f"  {_stage(step)}" for step in stages(node))])


def stages(node: Node) -> tuple[Origin, ...]:
    """The stages that made a value, oldest first, ending with the one that stands."""
    last = () if any(step.how == "interpolation" for step in node.history) else (node.origin(),)
    return (*node.history, *last)


def _stage(step: Origin) -> str:
    where = str(step.place) if step.place else "Python"
    return f"{where}: {_VERBS.get(step.how, step.how)} {step.shown}"
