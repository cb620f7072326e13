"""The nodes of a graph as they are written, in any of the three forms."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import attrs
from frozendict import frozendict

from registry.issue import ConfigPath, Issue, dotted, nearest
from registry.spec import Plain, component

from .graph import Outs, Ref

NODE_KEYS = ("name", "call", "args", "kwargs", "out")


class GraphWarning(UserWarning):
    """Something in a graph that does no harm and was hardly meant."""


@component
class GraphSection:
    """`graph:` as it is written, apart from `modules` and `return`."""

    inputs: tuple[str, ...]
    nodes: Plain = None
    order: Plain = None
    steps: Plain = None
    outputs: Plain = None


@attrs.frozen(kw_only=True)
class Node:
    """One node as it is written: its name, its place, and its call, `module:<name>` or `op:<name>`."""

    label: str
    path: ConfigPath
    kind: str
    callee: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Outs

    def makes(self) -> tuple[str, ...]:
        """The names that the node's results get."""
        if isinstance(self.out, str):
            return (self.out,)
        return tuple(self.out.values()) if isinstance(self.out, Mapping) else self.out

    def reads(self) -> dict[str, ConfigPath]:
        """The names that the node refers to, each with the place where it does so first."""
        found = [*references(self.args, (*self.path, "args")), *references(self.kwargs, (*self.path, "kwargs"))]
        return dict(reversed(found))


class Report:
    """The issues found so far."""

    def __init__(self) -> None:
        self.issues: list[Issue] = []

    def add(self, path: ConfigPath, problem: str, **details: Any) -> None:
        """One more issue."""
        self.issues.append(Issue(path=path, problem=problem, **details))


def written(section: GraphSection, path: ConfigPath, report: Report) -> Iterator[tuple[str | None, Any, ConfigPath]]:
    """(name, text, place) of each node in its order, from any of the three forms; steps have no name."""
    forms = {name: getattr(section, name) for name in ("nodes", "steps") if getattr(section, name) is not None}
    if len(forms) != 1:
        report.add(path, "needs either nodes or steps", found=" and ".join(forms) or "neither")
    elif isinstance(section.nodes, Mapping):
        yield from ordered(section.nodes, section.order, path, report)
    else:
        (form, nodes), *_ = forms.items()
        if not isinstance(nodes, tuple):
            report.add((*path, form), "has the wrong type", found=type(nodes).__name__, expected="a list of nodes")
            return
        for index, raw in enumerate(nodes):
            name = raw.get("name") if isinstance(raw, Mapping) and form == "nodes" else None
            if form == "nodes" and name is None:
                report.add((*path, form, index), "a node in a list needs a name")
            yield name, raw, (*path, form, index)


def ordered(
    nodes: Mapping[str, Any], order: Any, path: ConfigPath, report: Report
) -> Iterator[tuple[str | None, Any, ConfigPath]]:
    """The nodes of a mapping, in the order that is written beside it."""
    if not isinstance(order, tuple):
        hint = "YAML's own order does not count"
        report.add((*path, "order"), "nodes that are a mapping need an order, a list of their names", hint=hint)
        return
    for name in [name for name in nodes if name not in order]:
        warnings.warn(f"{dotted((*path, 'nodes', name))}: is not in `order` and never runs", GraphWarning, stacklevel=2)
    for index, name in enumerate(order):
        if name in nodes:
            yield name, nodes[name], (*path, "nodes", name)
        else:
            found = nearest(str(name), nodes)
            report.add((*path, "order", index), "no node has this name", found=repr(name), nearest=found)


def read_node(name: str | None, raw: Any, path: ConfigPath, report: Report) -> Node | None:
    """One node; None where its text makes none."""
    before = len(report.issues)
    if not isinstance(raw, Mapping):
        report.add(path, "a node is a mapping", found=repr(raw))
        return None
    for key in raw:
        if key not in NODE_KEYS:
            found = nearest(str(key), NODE_KEYS)
            report.add((*path, key), "unknown key", at="key", expected=", ".join(NODE_KEYS), nearest=found)
    kind, _, callee = str(raw.get("call", "")).partition(":")
    if kind not in ("module", "op") or not callee:
        report.add((*path, "call"), "calls nothing", found=repr(raw.get("call")), expected="module:<name> or op:<name>")
    args, kwargs, out = raw.get("args") or (), raw.get("kwargs") or frozendict(), raw.get("out", name)
    if not isinstance(args, tuple):
        report.add((*path, "args"), "is no list", found=repr(args))
    if not isinstance(kwargs, Mapping):
        report.add((*path, "kwargs"), "is no mapping", found=repr(kwargs))
    read_out(out, path, report)
    if len(report.issues) > before:
        return None
    return Node(
        label=name or str(out), path=path, kind=kind, callee=callee, args=parse(args, (*path, "args"), report),
        kwargs=parse(kwargs, (*path, "kwargs"), report), out=out,
    )  # fmt: skip


def read_out(out: Any, path: ConfigPath, report: Report) -> None:
    """Check a node's `out`: a name, a list of names, or a mapping to names."""
    names = (out,) if isinstance(out, str) else tuple(out.values()) if isinstance(out, Mapping) else out
    if isinstance(names, tuple) and names:
        check_names(names, (*path, "out"), report)
    else:
        report.add(
            (*path, "out"), "a step needs an out: a name, a list of names or a mapping to names", found=repr(out)
        )


def parse(value: Any, path: ConfigPath, report: Report) -> Any:
    """`value` with every `$name` in it a reference and every `$$text` the text `$text`."""
    if isinstance(value, Mapping):
        return frozendict({name: parse(item, (*path, name), report) for name, item in value.items()})
    if isinstance(value, tuple):
        return tuple(parse(item, (*path, index), report) for index, item in enumerate(value))
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    if value == "$":
        report.add(path, "refers to nothing", found="'$'", expected="$name, or $$ for a text that begins with $")
    return value[1:] if value.startswith("$$") else Ref(value[1:])


def references(value: Any, path: ConfigPath = ()) -> Iterator[tuple[str, ConfigPath]]:
    """Every reference in a parsed value: its name and its place."""
    if isinstance(value, Ref):
        yield value.name, path
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from references(item, (*path, key))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from references(item, (*path, index))


def check_names(names: Collection[Any], path: ConfigPath, report: Report) -> None:
    """Every name a distinct identifier."""
    if not names:
        report.add(path, "is empty")
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            report.add(path, "is no name", found=repr(name), expected="letters, digits and _, no digit first")
    if len(set(names)) < len(names):
        report.add(path, "has a name twice", found=", ".join(map(str, names)))
