"""Laying one tree over another: mappings merge deeply, the rest replaces, unless a `_merge_` says otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from registry.issue import ConfigPath, Issue, nearest

from .node import Node, Origin, kind

MODES = ("append", "prepend", "replace", "keyed")
_PARTS = ("_merge_", "_value_", "key")


def is_directive(node: Node) -> bool:
    """Whether a node is `{_merge_: mode, _value_: …}`."""
    return isinstance(node.value, dict) and "_merge_" in node.value


def directive_issues(node: Node, path: ConfigPath = ()) -> Iterator[Issue]:
    """What is wrong with the `_merge_` directives of a tree, by themselves."""
    if is_directive(node):
        yield from _one_directive(node, path)
    elif isinstance(node.value, dict) and "_value_" in node.value:
        yield _lonely_value(node, path)
    for key, child in node.children():
        yield from directive_issues(child, (*path, key))


def _lonely_value(node: Node, path: ConfigPath) -> Issue:
    near = [name for name in node.value if nearest(name, ("_merge_",))]
    name = near[0] if near else "_value_"
    problem = "is no _merge_, which _value_ needs" if near else "_value_ stands without _merge_"
    where, right = _mark(node.value[name].key), ("_merge_",) if near else ()
    return Issue(path=(*path, name), at="key", problem=problem, nearest=right, where=where)


def _one_directive(node: Node, path: ConfigPath) -> Iterator[Issue]:
    parts = node.value
    for name in parts:
        if name not in _PARTS:
            near, where = nearest(name, _PARTS), _mark(parts[name].key)
            expected = ", ".join(_PARTS)
            yield Issue(
                path=(*path, name),
                at="key",
                problem="unknown key beside _merge_",
                expected=expected,
                nearest=near,
                where=where,
            )
    mode = parts["_merge_"].value
    if mode not in MODES:
        near = nearest(mode, MODES) if isinstance(mode, str) else ()
        where, expected = _mark(parts["_merge_"].place), ", ".join(MODES)
        found = repr(mode) if not isinstance(mode, (dict, list)) else kind(mode)
        yield Issue(
            path=(*path, "_merge_"),
            problem="unknown merge mode",
            found=found,
            expected=expected,
            nearest=near,
            where=where,
        )
    if "_value_" not in parts:
        yield Issue(path=(*path, "_value_"), problem="_merge_ needs a _value_", where=_mark(parts["_merge_"].key))
        return
    value = parts["_value_"]
    if mode != "replace" and mode in MODES and not isinstance(value.value, list):
        yield Issue(
            path=(*path, "_value_"), problem=f"{mode} takes a list", found=kind(value.value), where=_mark(value.place)
        )
    if "key" in parts and (mode != "keyed" or not isinstance(parts["key"].value, str)):
        problem = "key is the name of a field, for mode keyed"
        yield Issue(path=(*path, "key"), problem=problem, where=_mark(parts["key"].place))


def _mark(place: Any) -> Any:
    return place.mark() if place else None


def merge(base: Node, over: Node, path: ConfigPath, issues: list[Issue]) -> Node:
    """`over` laid over `base`; what was replaced stays in the history."""
    if is_directive(base) and not is_directive(over) and not isinstance(over.value, dict):
        return _replace(base, over)
    if is_directive(base):
        value = merge(base.value["_value_"], over, path, issues)
        return attrs.evolve(base, value={**base.value, "_value_": value})
    if is_directive(over):
        return _directed(base, over, path, issues)
    if isinstance(base.value, dict) and isinstance(over.value, dict):
        items = dict(base.value)
        for key, child in over.value.items():
            items[key] = merge(items[key], child, (*path, key), issues) if key in items else child
        return attrs.evolve(base, value=items, key=over.key or base.key, place=over.place or base.place)
    return _replace(base, over)


def _replace(base: Node, over: Node) -> Node:
    return attrs.evolve(over, key=over.key or base.key, history=(*base.history, base.origin(), *over.history))


def _directed(base: Node, over: Node, path: ConfigPath, issues: list[Issue]) -> Node:
    mode, value = over.value["_merge_"].value, over.value["_value_"]
    if mode == "replace":
        return attrs.evolve(_replace(base, value), key=over.key or base.key)
    if not isinstance(base.value, list):
        if base.value is None:
            return attrs.evolve(_replace(base, value), key=over.key or base.key)
        problem = f"{mode} needs a list to work on, and below stands {kind(base.value)}"
        issues.append(Issue(path=path, problem=problem, where=_mark(over.value["_merge_"].place)))
        return base
    if mode == "keyed":
        items = _keyed(base.value, over, path, issues)
    else:
        items = [*base.value, *value.value] if mode == "append" else [*value.value, *base.value]
    return attrs.evolve(
        value,
        value=items,
        key=over.key or base.key,
        history=(*base.history, base.origin(), Origin(mode, over.place, "_merge_")),
    )


def _keyed(base: list[Node], over: Node, path: ConfigPath, issues: list[Issue]) -> list[Node]:
    field = over.value["key"].value if "key" in over.value else "name"
    result: dict[Any, Node] = {}
    for index, item in enumerate([*base, *over.value["_value_"].value]):
        name = item.value[field].value if isinstance(item.value, dict) and field in item.value else None
        if name is None or isinstance(name, (dict, list)):
            problem = f"a list merged by key needs mappings that each have {field!r}"
            issues.append(Issue(path=(*path, index), problem=problem, where=_mark(item.place)))
        elif name in result and index < len(base):
            problem = f"two items have {field!r} {name!r}"
            issues.append(Issue(path=(*path, index), problem=problem, where=_mark(item.place)))
        else:
            result[name] = merge(result[name], item, (*path, index), issues) if name in result else item
    return list(result.values())


def settle(node: Node) -> Node:
    """The tree with the directives that met nothing below them replaced by their values."""
    if is_directive(node):
        return attrs.evolve(settle(node.value["_value_"]), key=node.key)
    if isinstance(node.value, dict):
        settled: Any = {key: settle(child) for key, child in node.value.items()}
        changed = any(settled[key] is not child for key, child in node.value.items())
    elif isinstance(node.value, list):
        settled = [settle(child) for child in node.value]
        changed = any(new is not old for new, old in zip(settled, node.value, strict=True))
    else:
        return node
    return attrs.evolve(node, value=settled) if changed else node
