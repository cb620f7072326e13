"""The front end `model: {graph: …}`: from its text to a checked plan."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

from frozendict import frozendict
from torch import nn

from registry.issue import ConfigError, ConfigPath, dotted, nearest

from .arguments import node_issues
from .graph import Plan, Step
from .nodes import GraphSection, GraphWarning, Node, Report, check_names, read_node, written

Ops = Mapping[str, Callable[..., Any]]
RETURNS = ("single", "tuple", "dict")


def read_plan(section: GraphSection, returns: Any, modules: Collection[str], ops: Ops, path: ConfigPath) -> Plan:
    """The plan that a section describes.

    Args:
        section: what is written under `graph:`.
        returns: the value of `return`, None where it is absent.
        modules: names under `modules:`.
        ops: the functions that `op:` may name.
        path: the section's place.

    Raises:
        ConfigError: with every issue; a reference that fails names both of its ends.

    Warns:
        GraphWarning: a node's result or a module is never used.
    """
    report = Report()
    check_names(section.inputs, (*path, "inputs"), report)
    check_modules(modules, (*path, "modules"), report)
    nodes = [node for node in (read_node(*item, report) for item in written(section, path, report)) if node is not None]
    check_callees(nodes, modules, ops, report)
    check_uncalled(nodes, modules, (*path, "modules"), report)
    calling = [node for node in nodes if node.kind == "op" and node.callee in ops]
    report.issues += [issue for node in calling for issue in node_issues(node, node.path, ops[node.callee])]
    known = check_references(nodes, section.inputs, report)
    outputs, returns = read_outputs(section.outputs, returns, known, path, report)
    if report.issues:
        raise ConfigError(report.issues)
    warn_of_unused(nodes, modules, outputs.values(), path)
    steps = tuple(step(node, ops) for node in nodes)
    paths = tuple(node.path for node in nodes)
    return Plan(inputs=section.inputs, steps=steps, outputs=outputs, returns=returns, paths=paths)


def step(node: Node, ops: Ops) -> Step:
    """A checked node as the graph runs it."""
    module, op = (node.callee, None) if node.kind == "module" else (None, ops[node.callee])
    return Step(module, op, node.args, node.kwargs, node.out)


def read_outputs(
    raw: Any, returns: Any, known: Collection[str], path: ConfigPath, report: Report
) -> tuple[Mapping[str, str], str]:
    """What the graph returns, and in what form.

    A list of one returns the value itself, a longer list a tuple, a mapping a dict, unless `return` says otherwise.
    """
    if not isinstance(raw, (tuple, Mapping)) or not raw:
        report.add((*path, "outputs"), "needs a list of $name or a mapping to them", found=repr(raw))
        return {}, "single"
    outputs = dict(raw) if isinstance(raw, Mapping) else dict(enumerate(raw))
    outputs = {key: str(source).removeprefix("$") for key, source in outputs.items()}
    for key, source in outputs.items():
        if source not in known:
            problem = "refers to what is no input and no node's result"
            report.add((*path, "outputs", key), problem, found=f"${source}", nearest=nearest(source, known))
    inferred = "dict" if isinstance(raw, Mapping) else "single" if len(raw) == 1 else "tuple"
    returns = inferred if returns is None else returns
    if returns not in RETURNS:
        report.add((*path, "return"), "unknown form", found=repr(returns), expected=", ".join(RETURNS))
    elif returns == "single" and len(outputs) != 1:
        report.add((*path, "return"), "single returns exactly one output", found=f"{len(outputs)} outputs")
    elif returns == "dict" and not isinstance(raw, Mapping):
        report.add((*path, "return"), "dict needs outputs that are a mapping", found="a list")
    return frozendict({str(key): source for key, source in outputs.items()}), returns


# Checking.


def check_modules(modules: Collection[str], path: ConfigPath, report: Report) -> None:
    """Names that a submodule can have."""
    for name in modules:
        if not name.isidentifier() or hasattr(nn.Module, name):
            hint = "choose another: it is no identifier, or nn.Module has an attribute of this name"
            report.add((*path, name), "cannot be a module's name", at="key", found=repr(name), hint=hint)


def check_callees(nodes: list[Node], modules: Collection[str], ops: Ops, report: Report) -> None:
    """Every module and op known."""
    for node in nodes:
        valid = modules if node.kind == "module" else ops
        if node.callee not in valid:
            report.add(
                (*node.path, "call"), f"unknown {node.kind}", found=repr(node.callee),
                expected="one of " + ", ".join(sorted(valid)), nearest=nearest(node.callee, valid),
            )  # fmt: skip


def check_uncalled(nodes: list[Node], modules: Collection[str], path: ConfigPath, report: Report) -> None:
    """Modules that nobody calls, where a call of an unknown one may have meant them: either end may be misspelt."""
    called = {node.callee for node in nodes if node.kind == "module"}
    for name in modules:
        meant = nearest(name, called.difference(modules))
        if name not in called and meant:
            report.add((*path, name), "no node calls this module", at="key", found=repr(name), nearest=meant)


def check_references(nodes: list[Node], inputs: Collection[str], report: Report) -> set[str]:
    """Every reference to an input or an earlier result; returns all names that there are at the end."""
    makers = {name: node for node in nodes for name in node.makes()}
    known = dict.fromkeys(inputs, "an input")
    for node in nodes:
        for name, place in node.reads().items():
            if name not in known:
                names = nearest(name, {*known, *makers} - {name})
                report.add(place, dangling(name, node, makers), nearest=names)
        for name in node.makes():
            if name in known:
                report.add(node.path, f"the result {name!r} of node {node.label!r} is already {known[name]}")
            known[name] = f"the result of node {node.label!r} ({dotted(node.path)})"
    return set(known)


def dangling(name: str, reader: Node, makers: Mapping[str, Node]) -> str:
    """What is wrong with a reference to what is not there yet."""
    maker = makers.get(name)
    if maker is None:
        return f"node {reader.label!r} refers to ${name}, which is no input and no node's result"
    route = back(maker, reader, makers, ())
    if route:
        return f"node {reader.label!r} refers to ${name} in a cycle: {' → '.join([reader.label, *route])}"
    where = f"node {maker.label!r} ({dotted(maker.path)})"
    return f"node {reader.label!r} refers forward to ${name}, which {where} makes only later"


def back(node: Node, target: Node, makers: Mapping[str, Node], seen: tuple[Node, ...]) -> list[str]:
    """The labels of nodes from `node` to `target` along references; empty where there is no way."""
    if node is target:
        return [node.label]
    for name in node.reads():
        if name in makers and makers[name] not in (*seen, node):
            rest = back(makers[name], target, makers, (*seen, node))
            if rest:
                return [node.label, *rest]
    return []


def warn_of_unused(nodes: list[Node], modules: Collection[str], outputs: Collection[str], path: ConfigPath) -> None:
    """Warn of nodes whose results nobody reads, and of modules that nobody calls."""
    read = {*outputs, *(name for node in nodes for name in node.reads())}
    called = {node.callee for node in nodes if node.kind == "module"}
    unused = [node.path for node in nodes if read.isdisjoint(node.makes())]
    unused += [(*path, "modules", name) for name in modules if name not in called]
    for place in unused:
        warnings.warn(f"{dotted(place)}: is never used", GraphWarning, stacklevel=2)
