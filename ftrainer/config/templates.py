"""`templates:` and `_template_:`: a named mapping under a node, where the node wins."""

from __future__ import annotations

from typing import Any

import attrs

from registry.issue import ConfigError, ConfigPath, Issue, nearest

from .merge import merge, settle
from .node import EXPLODES, MAX_DEPTH, MAX_NODES, Node, Origin, kind, measure


def expand_templates(root: Node) -> Node:
    """The tree with each `_template_` laid under its node, and without `templates`.

    Raises:
        ConfigError: an unknown template, one that uses itself (with the chain), or one that is no mapping.
    """
    templates = root.value.get("templates")
    expander = _Expander(templates=_mapping_of(templates))
    if templates is not None and not isinstance(templates.value, (dict, type(None))):
        expander.refuse(
            templates, ("templates",), "templates is a mapping from names to mappings", kind(templates.value)
        )
    for name in expander.templates:
        expander.template(name, ("templates", name), ())
    rest = {key: child for key, child in root.value.items() if key != "templates"}
    expanded = expander.expand(attrs.evolve(root, value=rest), (), ())
    if expander.issues:
        raise ConfigError(expander.issues)
    return settle(expanded)


def _mapping_of(node: Node | None) -> dict[str, Node]:
    return node.value if node is not None and isinstance(node.value, dict) else {}


@attrs.define(kw_only=True)
class _Expander:
    templates: dict[str, Node]
    done: dict[str, Node] = attrs.field(factory=dict)
    issues: list[Issue] = attrs.field(factory=list)
    depths: list[int] = attrs.field(factory=list)
    expanded: int = 0

    def refuse(self, node: Node, path: ConfigPath, problem: str, found: str | None = None, **details: Any) -> None:
        where = node.place.mark() if node.place else None
        issue = Issue(path=path, problem=problem, found=found, where=where, **details)
        if issue not in self.issues:
            self.issues.append(issue)

    def template(self, name: str, path: ConfigPath, chain: tuple[str, ...]) -> Node:
        """A template with the templates that it uses expanded."""
        if name not in self.done:
            self.depths.append(len(path))
            self.done[name] = self.expand(self.templates[name], ("templates", name), (*chain, name))
            self.depths.pop()
        return self.done[name]

    def expand(self, node: Node, path: ConfigPath, chain: tuple[str, ...]) -> Node:
        """A node with every template below it expanded; untouched parts stay the same objects."""
        if not isinstance(node.value, (dict, list)):
            return node
        if len(path) + sum(self.depths) > MAX_DEPTH:
            self.refuse(node, path, f"templates nest more than {MAX_DEPTH} levels deep")
            return node
        children = [(key, child, self.expand(child, (*path, key), chain)) for key, child in node.children()]
        if any(new is not old for _, old, new in children):
            values: Any = [new for _, _, new in children]
            node = attrs.evolve(
                node, value=dict(zip(node.value, values, strict=True)) if isinstance(node.value, dict) else values
            )
        if isinstance(node.value, dict) and "_template_" in node.value:
            return self.apply(node, path, chain)
        return node

    def apply(self, node: Node, path: ConfigPath, chain: tuple[str, ...]) -> Node:
        """A node laid over its template."""
        asked = node.value["_template_"]
        own = attrs.evolve(node, value={key: child for key, child in node.value.items() if key != "_template_"})
        name, place = asked.value, (*path, "_template_")
        if not isinstance(name, str):
            self.refuse(asked, place, "_template_ takes a template's name", kind(name))
            return own
        if name not in self.templates:
            known = ", ".join(self.templates) or "no templates"
            self.refuse(
                asked, place, "unknown template", repr(name), expected=known, nearest=nearest(name, self.templates)
            )
            return own
        if name in chain:
            circle = " → ".join([*chain[chain.index(name) :], name])
            self.refuse(asked, place, f"templates go in a circle: {circle}")
            return own
        template = self.template(name, path, chain)
        if not isinstance(template.value, dict):
            self.refuse(self.templates[name], ("templates", name), "a template is a mapping", kind(template.value))
            return own
        self.expanded += measure(template)[0]
        if self.expanded > MAX_NODES:
            raise ConfigError([*self.issues, Issue(path=place, problem=EXPLODES)])
        step = Origin("template", asked.place, name)
        return attrs.evolve(merge(_stamped(template, step), own, path, self.issues), key=node.key)


def _stamped(node: Node, step: Origin) -> Node:
    """The tree with one more stage in the history of every part."""
    value = node.value
    if isinstance(value, dict):
        value = {key: _stamped(child, step) for key, child in value.items()}
    elif isinstance(value, list):
        value = [_stamped(child, step) for child in value]
    return attrs.evolve(node, value=value, history=(*node.history, step))
