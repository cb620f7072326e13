"""From a spec (`_type_` or `_target_` with its arguments) to the call that it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from .issue import ConfigError, ConfigPath, Issue, nearest
from .registry import Registry
from .signatures import Signature, signature_of
from .targets import import_target

RESERVED = ("_type_", "_target_", "_args_", "_kwargs_")


@attrs.frozen(kw_only=True)
class Call:
    """A factory and its still unread arguments; `places` are the config paths of the named ones."""

    factory: Callable[..., Any]
    signature: Signature | None
    key: str = ""
    named_by: str = "_type_"
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any]
    places: Mapping[str, ConfigPath]

    def hint(self, argument: int | str) -> Any:
        """The annotation of one argument."""
        if self.signature is None:
            return Any
        if isinstance(argument, int):
            positional, rest = self.signature.positional(), self.signature.rest
            found = positional[argument] if argument < len(positional) else rest
        else:
            found = self.signature.named().get(argument, self.signature.extra)
        return found.hint if found else Any


def is_spec(node: Any) -> bool:
    """Whether a node asks for a call."""
    return isinstance(node, Mapping) and ("_type_" in node or "_target_" in node)


def reserved(name: Any) -> bool:
    """Whether a key is written `_x_`.

    >>> reserved("_type_"), reserved("_private"), reserved("__")
    (True, False, False)
    """
    return isinstance(name, str) and len(name) > 2 and name.startswith("_") and name.endswith("_")


def find_call(registry: Registry, node: Mapping[str, Any], path: ConfigPath) -> tuple[Call | None, tuple[Issue, ...]]:
    """The call of a spec, with what is wrong with its reserved keys; None where no factory was found."""
    args, kwargs, places, issues = _arguments(registry, node, path)
    named_by = "_target_" if "_target_" in node and "_type_" not in node else "_type_"
    if "_type_" in node and "_target_" in node:
        issues.append(Issue(path=(*path, "_target_"), at="key", problem="a spec has _type_ or _target_, not both"))
    name = node[named_by]
    if not isinstance(name, str):
        issues.append(Issue(path=(*path, named_by), problem="must be a name", found=repr(name), expected="text"))
        return None, tuple(issues)
    try:
        factory, signature = _factory(registry, name, named_by, (*path, named_by))
    except ConfigError as error:
        return None, (*issues, *error.issues)
    call = Call(
        factory=factory, signature=signature, key=name, named_by=named_by, args=args, kwargs=kwargs, places=places
    )
    return call, tuple(issues)


def _factory(
    registry: Registry, name: str, named_by: str, path: ConfigPath
) -> tuple[Callable[..., Any], Signature | None]:
    if named_by == "_target_":
        factory = import_target(name, registry.settings, path)
        return factory, signature_of(factory)
    entry = registry.entry(name, path)
    return entry.factory, entry.signature


def _arguments(
    registry: Registry, node: Mapping[str, Any], path: ConfigPath
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, ConfigPath], list[Issue]]:
    issues = []
    args, named = node.get("_args_", ()), node.get("_kwargs_", {})
    if not isinstance(args, (list, tuple)):
        issues.append(Issue(path=(*path, "_args_"), problem="must be a list", found=_kind(args), expected="a list"))
        args = ()
    if not isinstance(named, Mapping):
        issues.append(
            Issue(path=(*path, "_kwargs_"), problem="must be a mapping", found=_kind(named), expected="a mapping")
        )
        named = {}
    kwargs = {name: item for name, item in node.items() if not reserved(name)}
    places: dict[str, ConfigPath] = {name: (*path, name) for name in kwargs}
    for name, item in named.items():
        place = (*path, "_kwargs_", name)
        if name in kwargs:
            issues.append(Issue(path=place, at="key", problem=f"{name!r} is given twice, beside _kwargs_ too"))
        kwargs[name], places[name] = item, place
    if registry.settings.strict:
        issues += [unknown_reserved(name, path) for name in node if reserved(name) and name not in RESERVED]
    return tuple(args), kwargs, places, issues


def unknown_reserved(name: str, path: ConfigPath) -> Issue:
    """The issue for a key of the form `_x_` that means nothing."""
    return Issue(
        path=(*path, name),
        at="key",
        problem="unknown reserved key",
        found=repr(name),
        expected=", ".join(RESERVED),
        nearest=nearest(name, RESERVED),
        hint="with settings.strict: false it would be a note",
    )


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, (list, tuple)) else repr(value)
