"""A graph node's arguments against the signature of what it calls, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

import attrs

from registry.hints import describe, is_mapping, is_open, is_sequence, options
from registry.instantiate import check
from registry.issue import ConfigPath, Issue
from registry.lookup import is_spec
from registry.registry import Registry
from registry.signatures import Signature, bind, signature_of

from .graph import Ref, Step
from .nodes import Node, references

SPEC, REFERENCE = "Tensor (a spec with _type_)", "$name of a tensor"
"""How an annotation `Tensor` is put elsewhere, and in a graph."""


def node_issues(step: Step | Node, path: ConfigPath, function: Callable[..., Any]) -> Iterator[Issue]:
    """What a function would refuse in a node's arguments, as far as its signature tells.

    What a node takes from an input or an earlier node may be anything; what is written there must suit.

    Args:
        step: with its arguments parsed.
        path: where the node is written.
        function: an op, or a module's `forward`.
    """
    signature = signature_of(function)
    if signature is None:
        return
    places: dict[str, ConfigPath] = {name: (*path, "kwargs", name) for name in step.kwargs}
    for issue in bind(signature, len(step.args), places, (*path, "kwargs")):
        crowded = issue.path[-1:] == ("_args_",)
        problem = issue.problem.replace("in _args_ too", "in args too")
        yield attrs.evolve(issue, path=(*path, "args") if crowded else issue.path, problem=problem)
    for index, value in enumerate(step.args):
        yield from literal_issues(value, hint_at(signature, index), (*path, "args", index))
    named = signature.named()
    for name, value in step.kwargs.items():
        if name in named:
            yield from literal_issues(value, named[name].hint, places[name])


def hint_at(signature: Signature, index: int) -> Any:
    """The annotation of a positional argument."""
    positional = signature.positional()
    found = positional[index] if index < len(positional) else signature.rest
    return found.hint if found else Any


def literal_issues(value: Any, hint: Any, path: ConfigPath) -> Iterator[Issue]:
    """What is wrong with the written part of an argument; references in it suit every annotation."""
    if isinstance(value, Ref):
        return
    if is_spec(value):
        yield Issue(path=path, problem="is plain data: nothing is built here", found="a spec with _type_")
    elif next(references(value), None):
        yield from mixed_issues(value, hint, path)
    else:
        for issue in check(Registry(), value, path, expected=hint):
            yield attrs.evolve(issue, expected=issue.expected and issue.expected.replace(SPEC, REFERENCE))


def mixed_issues(value: Any, hint: Any, path: ConfigPath) -> Iterator[Issue]:
    """The same for a container that holds a reference."""
    fitting = is_mapping if isinstance(value, Mapping) else is_sequence
    found = [option for option in options(hint) if fitting(option)]
    if not found and not any(is_open(option) for option in options(hint)):
        kind = "a mapping" if isinstance(value, Mapping) else "a list"
        yield Issue(
            path=path, problem="has the wrong type", found=kind, expected=describe(hint).replace(SPEC, REFERENCE)
        )
    elif isinstance(value, tuple):
        item = next((get_args(option)[0] for option in found if get_args(option)), Any)
        for index, element in enumerate(value):
            yield from literal_issues(element, item, (*path, index))
