"""The configuration as a tree that remembers where every part of it was written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import attrs

from registry.issue import ConfigError, ConfigPath, Issue, Mark

MAX_DEPTH = 100
MAX_NODES = 200_000
EXPLODES = f"aliases, templates or interpolations expand to more than {MAX_NODES} values"

_HALF = re.compile("[\ud800-\udfff]")
_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")


@attrs.frozen(eq=False)
class Source:
    """A text that configuration came from: a file, or an override."""

    name: str
    text: str

    def line(self, number: int) -> str:
        """One line of it, counted from 1; empty past the end."""
        lines = _BREAK.split(self.text)
        return lines[number - 1] if 0 < number <= len(lines) else ""


class Place(NamedTuple):
    """Where something begins: 1-based line and column, and how many columns it takes."""

    source: Source
    line: int
    column: int
    width: int = 1

    def mark(self) -> Mark:
        """The place as an error shows it."""
        text = self.source.line(self.line)
        width = max(1, min(self.width, len(text) - self.column + 1))
        return Mark(file=self.source.name, line=self.line, column=self.column, text=text, width=width)

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"


class Origin(NamedTuple):
    """One stage of a value's way: how it came (`file`, `override`, `template`, …), where, and as what text."""

    how: str
    place: Place | None
    shown: str


@attrs.frozen(kw_only=True, eq=False)
class Node:
    """One value.

    Attributes:
        value: a scalar, or a dict or list of nodes, which nobody changes.
        place: where the value is written; None where it came from Python.
        key: where its key is written, likewise.
        how: what wrote it: `file`, `override`, `python`.
        history: what stood here before, oldest first.
        secrets: values of environment variables inside it, never to be printed.
        shown: the text to print in place of a value with secrets.
    """

    value: Any
    place: Place | None = None
    key: Place | None = None
    how: str = "file"
    history: tuple[Origin, ...] = ()
    secrets: tuple[str, ...] = ()
    shown: str | None = None

    def origin(self) -> Origin:
        """The last stage of the value's way."""
        return Origin(self.how, self.place, summary(self))

    def children(self) -> Iterator[tuple[str | int, Node]]:
        """Keys or indices with their nodes; nothing for a scalar."""
        if isinstance(self.value, dict):
            yield from self.value.items()
        elif isinstance(self.value, list):
            yield from enumerate(self.value)


def kind(value: Any) -> str:
    """What a value is, in a user's words.

    >>> kind({}), kind([1]), kind(None), kind(True), kind(1), kind(1.5), kind("a")
    ('a mapping', 'a list', 'null', 'a boolean', 'an integer', 'a float', 'text')
    """
    names = {dict: "a mapping", list: "a list", type(None): "null", bool: "a boolean", int: "an integer"}
    return {**names, float: "a float", str: "text"}.get(type(value), f"a {type(value).__name__}")


def summary(node: Node) -> str:
    """A node on one line: scalars in full, containers by size, secrets as the expression that fetched them."""
    if node.shown is not None:
        return node.shown
    if isinstance(node.value, (dict, list)):
        return f"{kind(node.value)} of {len(node.value)}"
    return scalar_text(node.value)


def scalar_text(value: Any) -> str:
    """A scalar as YAML writes it, text without quotes.

    >>> scalar_text(True), scalar_text(None), scalar_text(1e-3), scalar_text("a b")
    ('true', 'null', '0.001', 'a b')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value != value:
        return ".nan"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return ".inf" if value > 0 else "-.inf"
    return str(value)


def plain(node: Node) -> Any:
    """The bare data: dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def public(node: Node) -> Any:
    """The bare data, with expressions in place of values from the environment; it reads back as the same data."""
    if node.shown is not None:
        return node.shown
    if isinstance(node.value, str):
        return node.value.replace("${", "$${")
    if isinstance(node.value, dict):
        return {key: public(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [public(child) for child in node.value]
    return node.value


def stable(value: Any) -> Any:
    """Data in a form that compares as a configuration means it: booleans are no numbers, not-a-number equals itself.

    >>> stable(True) == stable(1), stable(float("nan")) == stable(float("nan")), stable(1) == stable(1.0)
    (False, True, True)
    """
    if isinstance(value, dict):
        return {key: stable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [stable(item) for item in value]
    if isinstance(value, bool) or value != value:
        return ("scalar", scalar_text(value))
    return value


def from_python(value: Any, how: str = "python", path: ConfigPath = ()) -> Node:
    """Data made in Python as a tree without places.

    Raises:
        ConfigError: something is no YAML data (text, numbers, booleans, null, lists, mappings with text keys).
    """
    issues: list[Issue] = []
    node = _from_python(value, how, path, issues)
    if issues:
        raise ConfigError(issues)
    return node


def _from_python(value: Any, how: str, path: ConfigPath, issues: list[Issue]) -> Node:
    if len(path) > MAX_DEPTH:
        issues.append(too_deep(path))
    elif isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                issues.append(Issue(path=path, problem="keys are text", found=repr(key)))
        items = {str(key): _from_python(item, how, (*path, str(key)), issues) for key, item in value.items()}
        return Node(value=items, how=how)
    elif isinstance(value, (list, tuple)):
        return Node(value=[_from_python(item, how, (*path, i), issues) for i, item in enumerate(value)], how=how)
    elif value is not None and type(value) not in (bool, int, float, str):
        expected = "text, a number, a boolean, null, a list or a mapping"
        issues.append(Issue(path=path, problem="is no YAML data", found=f"a {type(value).__name__}", expected=expected))
    elif isinstance(value, str) and _HALF.search(value):
        issues.append(Issue(path=path, problem="holds half a surrogate pair, which is no character"))
    return Node(value=value, how=how)


def too_deep(path: ConfigPath, place: Place | None = None) -> Issue:
    """The issue for nesting that no configuration needs."""
    where = place.mark() if place else None
    return Issue(path=path[:8], problem=f"is nested more than {MAX_DEPTH} levels deep", where=where)


def refuse_explosion(root: Node) -> None:
    """Raise where aliases, templates or interpolations make a tree that would not fit in memory.

    Raises:
        ConfigError: written out, the tree has too many values or too many levels.
    """
    size, depth = measure(root)
    if depth > MAX_DEPTH:
        raise ConfigError([too_deep(())])
    if size > MAX_NODES:
        raise ConfigError([Issue(problem=EXPLODES)])


def measure(root: Node) -> tuple[int, int]:
    """Values and levels of a tree; parts that are shared are walked once, and without recursion."""
    known: dict[int, tuple[int, int]] = {}
    stack = [(root, False)]
    while stack:
        node, ready = stack.pop()
        inner = _containers(node)
        if ready or not inner:
            below = [known[id(child.value)] for child in inner]
            leaves = len(node.value) - len(inner) if isinstance(node.value, (dict, list)) else 0
            deepest = max((deep for _, deep in below), default=min(leaves, 1))
            known[id(node.value)] = 1 + leaves + sum(size for size, _ in below), 1 + deepest
        elif id(node.value) not in known:
            stack.append((node, True))
            stack += [(child, False) for child in inner]
    return known[id(root.value)]


def _containers(node: Node) -> list[Node]:
    value = node.value
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return []
    return [child for child in value if isinstance(child.value, (dict, list))]


def descend(root: Node, path: ConfigPath) -> tuple[list[Node], ConfigPath]:
    """The nodes along a path as far as it goes, root first, and the part of the path that was not there."""
    nodes = [root]
    for depth, part in enumerate(path):
        children = dict(nodes[-1].children())
        if part not in children:
            return nodes, path[depth:]
        nodes.append(children[part])
    return nodes, ()
