"""`key.path=value` from the command line, and `{"key.path": value}` from Python."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from registry.issue import ConfigError, ConfigPath, Issue, dotted

from .merge import directive_issues, is_directive, merge
from .node import MAX_DEPTH, Node, Place, Source, from_python, kind
from .parse import parse

_PART = re.compile(r'\.?(?:"([^"]+)"|([^."\[\]]+))|\[(\d+)\]')


@attrs.frozen(kw_only=True)
class Override:
    """One value for one path; `keys` are the places of the path's parts."""

    path: tuple[str, ...]
    node: Node
    keys: tuple[Place | None, ...]
    where: Place | None = None


def split_path(text: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The parts of a dotted path, and the 0-based columns where they begin; `[0]` and `.0` are the same.

    >>> split_path('callbacks[0].over."optimizer.lr"')
    (('callbacks', '0', 'over', 'optimizer.lr'), (0, 10, 13, 19))

    Raises:
        ValueError: the text is no path.
    """
    parts, columns, position = [], [], 0
    while position < len(text):
        match = _PART.match(text, position)
        dot_wrong = match is not None and match[3] is None and (position == 0) == match[0].startswith(".")
        if match is None or dot_wrong:
            raise ValueError(f"is no path of keys joined by dots: {text!r}")
        group = next(index for index in (1, 2, 3) if match[index] is not None)
        parts.append(match[group])
        columns.append(match.start(group))
        position = match.end()
    if not parts:
        raise ValueError("is no path: it is empty")
    if "_merge_" in parts or "_value_" in parts:
        raise ValueError("leads into a directive; give it as the value: key={_merge_: append, _value_: […]}")
    if len(parts) > MAX_DEPTH:
        raise ValueError(f"is nested more than {MAX_DEPTH} levels deep")
    return tuple(parts), tuple(columns)


def read_overrides(given: Mapping[str, Any] | Sequence[str], issues: list[Issue]) -> list[Override]:
    """Overrides as they were given; `issues` receives what is wrong with those that are left out."""
    read = (
        [_from_pair(name, value) for name, value in given.items()]
        if isinstance(given, Mapping)
        else map(_from_text, given)
    )
    overrides: list[Override] = []
    for result in read:
        wrong = [result] if isinstance(result, Issue) else [*directive_issues(result.node, result.path)]
        issues += wrong
        if isinstance(result, Override) and not wrong:
            overrides.append(result)
    return overrides


def _from_pair(name: str, value: Any) -> Override | Issue:
    try:
        path, _ = split_path(name)
        return Override(path=path, node=from_python(value, "override", path), keys=(None,) * len(path))
    except ValueError as error:
        return Issue(problem=f"the override's name {error}")
    except ConfigError as error:
        return error.issues[0]


def _from_text(text: str) -> Override | Issue:
    source = Source("<override>", text)
    name, equals, value = text.partition("=")
    if not equals:
        hint = "write key.path=value"
        return Issue(
            problem="an override has no =", found=repr(text), hint=hint, where=Place(source, 1, 1, len(text)).mark()
        )
    try:
        path, columns = split_path(name)
    except ValueError as error:
        return Issue(problem=f"the override {error}", where=Place(source, 1, 1, len(name)).mark())
    keys = tuple(Place(source, 1, column + 1, len(part)) for part, column in zip(path, columns, strict=True))
    issues: list[Issue] = []
    try:
        node = parse(Source("<override>", value), issues, path, "override")
    except ConfigError as error:
        issues += error.issues
    if issues:
        return _moved_issue(attrs.evolve(issues[0], path=issues[0].path or path), source, len(name) + 1)
    if not value.strip():
        node = Node(value=None, how="override")
    return Override(path=path, node=_moved(node, source, len(name) + 1), keys=keys, where=keys[0])


def _moved_issue(issue: Issue, source: Source, columns: int) -> Issue:
    if issue.where is None or issue.where.line > 1:
        return attrs.evolve(issue, where=Place(source, 1, columns + 1, len(source.text) - columns).mark())
    return attrs.evolve(issue, where=attrs.evolve(issue.where, column=issue.where.column + columns, text=source.text))


def _moved(node: Node, source: Source, columns: int) -> Node:
    """The tree of an override's value, its places counted in the whole override."""

    def shift(place: Place | None) -> Place | None:
        return place and place._replace(source=source, column=place.column + (columns if place.line == 1 else 0))

    value = node.value
    if isinstance(value, dict):
        value = {key: _moved(child, source, columns) for key, child in value.items()}
    elif isinstance(value, list):
        value = [_moved(child, source, columns) for child in value]
    return attrs.evolve(
        node, value=value, place=shift(node.place) or Place(source, 1, columns + 1), key=shift(node.key)
    )


def apply_overrides(root: Node, overrides: Sequence[Override], issues: list[Issue]) -> Node:
    """The tree with every override laid over it; `issues` receives paths through scalars and past the end of lists."""
    for override in overrides:
        root = _put(root, override, 0, issues)
    return root


def _put(node: Node, override: Override, depth: int, issues: list[Issue]) -> Node:
    if depth == len(override.path):
        return merge(node, override.node, override.path, issues)
    part = override.path[depth]
    if is_directive(node):
        return attrs.evolve(node, value={**node.value, "_value_": _put(node.value["_value_"], override, depth, issues)})
    if isinstance(node.value, list):
        return _put_in_list(node, override, depth, issues)
    if not isinstance(node.value, dict) and node.value is not None:
        found = f"{dotted(_indexed(override.path[:depth]))} is {kind(node.value)}"
        issues.append(_issue(override, depth, "the path runs through what is no mapping", found))
        return node
    children = node.value or {}
    child = _put(children[part], override, depth + 1, issues) if part in children else _fresh(override, depth)
    return attrs.evolve(node, value={**children, part: child})


def _put_in_list(node: Node, override: Override, depth: int, issues: list[Issue]) -> Node:
    part = override.path[depth]
    if not part.isdecimal() or int(part) >= len(node.value):
        found = f"{part!r}, for a list of {len(node.value)}"
        issues.append(_issue(override, depth, "is no index of the list", found))
        return node
    items = list(node.value)
    items[int(part)] = _put(items[int(part)], override, depth + 1, issues)
    return attrs.evolve(node, value=items)


def _fresh(override: Override, depth: int) -> Node:
    node = attrs.evolve(override.node, key=override.keys[-1])
    for level in range(len(override.path) - 1, depth, -1):
        node = Node(
            value={override.path[level]: node}, place=override.keys[level], key=override.keys[level - 1], how="override"
        )
    return attrs.evolve(node, key=override.keys[depth])


def _issue(override: Override, depth: int, problem: str, found: str) -> Issue:
    place = override.keys[depth]
    path = _indexed(override.path[: depth + 1])
    return Issue(path=path, problem=problem, found=found, where=place.mark() if place else None)


def _indexed(path: tuple[str, ...]) -> ConfigPath:
    return tuple(int(part) if part.isdecimal() else part for part in path)
