"""From a tree of YAML data to components: the whole tree is checked before anything is called."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import attrs
from frozendict import frozendict

from .frozen import standing_in_the_way
from .hints import class_mismatch, describe, fits, is_mapping, is_open, is_protocol, is_sequence, options, plain
from .issue import ConfigError, ConfigPath, Issue
from .literals import literal_issues
from .lookup import Call, find_call, is_spec
from .registry import Registry
from .scalars import read_scalar
from .signatures import Parameter, bind, signature_of
from .spec import Deferred, call_at, freeze


class Unbuilt(NamedTuple):
    """Stands for a component while a tree is only checked."""

    factory: Callable[..., Any]


class Read(NamedTuple):
    """What became of a node, and what is wrong with it; where something is, the value means nothing."""

    value: Any
    issues: tuple[Issue, ...] = ()


@attrs.frozen(kw_only=True)
class Walk:
    """How a tree is walked: `call` builds components, otherwise they are only checked; `deferred` builds none below."""

    registry: Registry
    call: bool
    deferred: bool = False


def check(
    registry: Registry, tree: Any, path: ConfigPath = (), inject: Collection[str] = (), expected: Any = Any
) -> tuple[Issue, ...]:
    """Everything that is wrong with a tree of specs, found without calling a factory.

    Args:
        registry: the keys that `_type_` may name.
        tree: YAML data: one spec, or lists and mappings of specs.
        path: the config path of `tree`.
        inject: names that the caller of the topmost factory will supply.
        expected: the annotation that the tree must suit.
    """
    return read(Walk(registry=registry, call=False), tree, expected, path, dict.fromkeys(inject)).issues


def instantiate(
    registry: Registry, tree: Any, path: ConfigPath = (), inject: Mapping[str, Any] = frozendict(), expected: Any = Any
) -> Any:
    """Build the components that a tree of specs names, inner ones first.

    >>> registry = Registry().register("number.power", lambda base, exponent=2: base**exponent)
    >>> instantiate(registry, [{"_type_": "number.power", "base": {"_type_": "number.power", "base": 3}}])
    (81,)

    Args:
        registry: the keys that `_type_` may name.
        tree: YAML data: one spec, or lists and mappings of specs.
        path: the config path of `tree`, for errors.
        inject: built values for parameters of the topmost factory that it declares and the YAML does not give.
        expected: the annotation that the tree must suit; an attrs class takes a mapping without `_type_`.

    Raises:
        ConfigError: with every issue, each under its config path. Nothing was called if the check found any.
    """
    issues = check(registry, tree, path, tuple(inject), expected)
    if not issues:
        value, issues = read(Walk(registry=registry, call=True), tree, expected, path, inject)
    if issues:
        raise ConfigError(issues)
    return value


def read(walk: Walk, node: Any, hint: Any, path: ConfigPath, inject: Mapping[str, Any] = frozendict()) -> Read:
    """One node under one annotation."""
    choices = options(hint)
    if any(plain(choice) for choice in choices):
        return Read(freeze(node))
    if is_spec(node):
        return _read_spec(walk, node, hint, path, inject)
    if isinstance(node, Mapping):
        fitting = [c for c in choices if _takes_mapping(c)]
        literal = None if fitting else _read_literal(walk, node, choices, path)
        return literal or _read_any_of(walk, node, fitting, hint, path)
    if isinstance(node, (list, tuple)):
        fitting = [c for c in choices if is_open(c) or is_sequence(c)]
        literal = None if fitting else _read_literal(walk, node, choices, path)
        return literal or _read_any_of(walk, node, fitting, hint, path)
    value, issues = read_scalar(node, choices, path)
    literal = _read_literal(walk, node, choices, path) if issues else None
    return literal or Read(value, issues)


def _read_literal(walk: Walk, node: Any, choices: tuple[Any, ...], path: ConfigPath) -> Read | None:
    """Numbers for a parameter that wants what is made from them, in a deferred call; else None."""
    if not walk.deferred:
        return None
    factory = next((walk.registry.literals[choice] for choice in choices if choice in walk.registry.literals), None)
    if factory is None:
        return None
    issues = tuple(literal_issues(node, path))
    return Read(Deferred(key="numbers", factory=factory, args=(freeze(node),), path=path), issues)


def _takes_mapping(hint: Any) -> bool:
    return is_open(hint) or is_mapping(hint) or (isinstance(hint, type) and attrs.has(hint) and hint is not Deferred)


def _read_any_of(walk: Walk, node: Any, choices: list[Any], hint: Any, path: ConfigPath) -> Read:
    if not choices:
        kind = "a mapping" if isinstance(node, Mapping) else "a list"
        expected = "; give it as a spec with _type_" if any(is_protocol(c) for c in options(hint)) else ""
        return Read(
            None, (Issue(path=path, problem="has the wrong type", found=kind, expected=describe(hint) + expected),)
        )
    results = [_read_container(walk, node, choice, path) for choice in choices]
    return next((result for result in results if not result.issues), results[0])


def _read_container(walk: Walk, node: Any, hint: Any, path: ConfigPath) -> Read:
    if isinstance(node, Mapping):
        if isinstance(hint, type) and attrs.has(hint):
            call = Call(
                factory=hint, signature=signature_of(hint), kwargs=dict(node), places={k: (*path, k) for k in node}
            )
            return _read_call(walk, call, hint, path, {})
        args = getattr(hint, "__args__", None) or (Any, Any)
        return _gather(frozendict, [(key, read(walk, item, args[-1], (*path, key))) for key, item in node.items()])
    args = getattr(hint, "__args__", None) or (Any, ...)
    if len(args) == 1 or args[-1] is ...:
        hints = [args[0]] * len(node)
    elif len(args) != len(node):
        found = f"a list of {len(node)}"
        return Read(None, (Issue(path=path, problem="has the wrong length", found=found, expected=describe(hint)),))
    else:
        hints = list(args)
    reads = [(i, read(walk, item, hints[i], (*path, i))) for i, item in enumerate(node)]
    return _gather(lambda pairs: tuple(value for _, value in pairs), reads)


def _gather(make: Callable[[list[tuple[Any, Any]]], Any], reads: list[tuple[Any, Read]]) -> Read:
    issues = tuple(issue for _, result in reads for issue in result.issues)
    return Read(None, issues) if issues else Read(make([(key, result.value) for key, result in reads]))


def _read_spec(walk: Walk, node: Mapping[str, Any], hint: Any, path: ConfigPath, inject: Mapping[str, Any]) -> Read:
    call, issues = find_call(walk.registry, node, path)
    if call is None:
        return Read(None, issues)
    deferred = walk.deferred or any(option is Deferred for option in options(hint))
    mismatch = None if deferred or not isinstance(call.factory, type) else class_mismatch(call.factory, hint)
    if mismatch:
        issues = (*issues, Issue(path=(*path, call.named_by), problem=mismatch, expected=describe(hint)))
    result = _read_call(attrs.evolve(walk, deferred=deferred), call, hint, path, inject)
    return Read(result.value, (*issues, *result.issues))


def _read_call(walk: Walk, call: Call, hint: Any, path: ConfigPath, inject: Mapping[str, Any]) -> Read:
    signature = call.signature
    taken = (
        {}
        if signature is None
        else {k: v for k, v in inject.items() if k in signature.named() and k not in call.kwargs}
    )
    issues = () if signature is None else bind(signature, len(call.args), call.places, path, taken)
    reads = [(i, read(walk, item, call.hint(i), (*path, "_args_", i))) for i, item in enumerate(call.args)]
    named = [(name, read(walk, item, call.hint(name), call.places[name])) for name, item in call.kwargs.items()]
    issues = (*issues, *(issue for _, result in (*reads, *named) for issue in result.issues))
    if issues:
        return Read(None, issues)
    args, kwargs = tuple(r.value for _, r in reads), {name: r.value for name, r in named}
    if walk.deferred:
        return Read(Deferred(key=call.key, factory=call.factory, args=args, kwargs={**kwargs, **taken}, path=path))
    return _make(call, args, {**kwargs, **taken}, hint, path) if walk.call else Read(Unbuilt(call.factory))


def _make(call: Call, args: tuple[Any, ...], kwargs: Mapping[str, Any], hint: Any, path: ConfigPath) -> Read:
    try:
        value = call_at(path, call.factory, args, kwargs)
    except ConfigError as error:
        return Read(None, error.issues)
    obstacle = standing_in_the_way(value)
    if obstacle:
        problem = f"{call.key!r} returned what is no frozen, hashable component: {obstacle}"
        return Read(
            None, (Issue(path=path, problem=problem, hint="make it a @component, its fields numbers, text, tuples"),)
        )
    if not fits(value, hint):
        found = f"a {type(value).__name__} from {call.key!r}"
        return Read(None, (Issue(path=path, problem="has the wrong type", found=found, expected=describe(hint)),))
    return Read(value)


__all__ = ["Parameter", "Read", "Unbuilt", "Walk", "check", "instantiate", "read"]
