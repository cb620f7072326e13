"""What a factory takes, read before it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, get_type_hints

import attrs

from .issue import ConfigPath, Issue, nearest


@attrs.frozen(kw_only=True)
class Parameter:
    """One parameter of a factory; `hint` is its annotation with names resolved, `Any` where there is none."""

    name: str
    hint: Any = Any
    required: bool = True
    default: Any = None
    positional: bool = False


@attrs.frozen(kw_only=True)
class Signature:
    """The parameters of a factory, with those that catch the rest (`*args`, `**kwargs`) apart."""

    parameters: tuple[Parameter, ...] = ()
    rest: Parameter | None = None
    extra: Parameter | None = None

    def named(self) -> dict[str, Parameter]:
        """The parameters by name."""
        return {parameter.name: parameter for parameter in self.parameters}

    def positional(self) -> tuple[Parameter, ...]:
        """The parameters that `_args_` fills, in order."""
        return tuple(parameter for parameter in self.parameters if parameter.positional)


def signature_of(factory: Callable[..., Any]) -> Signature | None:
    """The signature of a class or function; None where Python cannot tell.

    attrs classes are read from their fields, since their converters hide the annotations.
    """
    if isinstance(factory, type) and attrs.has(factory):
        return _signature_of_attrs(factory)
    try:
        found = inspect.signature(factory)
    except (TypeError, ValueError):
        return None
    return _signature_of_callable(found, _hints(_initialiser(factory) if isinstance(factory, type) else factory))


def _initialiser(cls: type) -> Any:
    return next((vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)), cls)


def _signature_of_attrs(cls: type) -> Signature:
    hints = _hints(cls)
    return Signature(
        parameters=tuple(
            Parameter(
                name=field.alias or field.name,
                hint=hints.get(field.name, Any),
                required=field.default is attrs.NOTHING,
                default=field.default.factory() if _made(field.default) else field.default,
                positional=not field.kw_only,
            )
            for field in attrs.fields(cls)
            if field.init
        )
    )


def _made(default: Any) -> bool:
    return isinstance(default, attrs.Factory) and not default.takes_self  # type: ignore[arg-type]


def _signature_of_callable(found: inspect.Signature, hints: Mapping[str, Any]) -> Signature:
    kinds = inspect.Parameter
    catching: dict[Any, Parameter] = {}
    parameters = []
    for name, parameter in found.parameters.items():
        read = Parameter(
            name=name,
            hint=hints.get(name, Any),
            required=parameter.default is kinds.empty,
            default=parameter.default,
            positional=parameter.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD),
        )
        if parameter.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD):
            catching[parameter.kind] = read
        else:
            parameters.append(read)
    rest, extra = catching.get(kinds.VAR_POSITIONAL), catching.get(kinds.VAR_KEYWORD)
    return Signature(parameters=tuple(parameters), rest=rest, extra=extra)


def _hints(target: Any) -> dict[str, Any]:
    """Resolved annotations; those with a name that only type checkers import are left out."""
    function = inspect.unwrap(getattr(target, "func", target))
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError):
        return _hints_one_by_one(function)


def _hints_one_by_one(function: Any) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        alone = SimpleNamespace(__annotations__={name: annotation})
        with suppress(NameError, TypeError, AttributeError, SyntaxError):
            hints |= get_type_hints(alone, getattr(function, "__globals__", {}), include_extras=True)
    return hints


def bind(
    signature: Signature,
    args: int,
    places: Mapping[str, ConfigPath],
    path: ConfigPath,
    given: Collection[str] = (),
) -> tuple[Issue, ...]:
    """What is wrong with the names and number of the arguments, before any value is looked at.

    Args:
        signature: what the factory takes.
        args: how many positional arguments there are.
        places: the config path of each keyword argument.
        path: the config path of the call.
        given: names that the caller will supply by itself.
    """
    positional, named = signature.positional(), signature.named()
    filled = {parameter.name for parameter in positional[:args]}
    issues = []
    if args > len(positional) and signature.rest is None:
        issues.append(_too_many(args, len(positional), path))
    for name, place in places.items():
        if name in filled:
            issues.append(Issue(path=place, at="key", problem=f"{name!r} is given twice, by position in _args_ too"))
        elif name not in named and signature.extra is None:
            issues.append(unknown_name(name, named, place))
    absent = [p.name for p in signature.parameters if p.required and p.name not in {*filled, *places, *given}]
    return (*issues, *(Issue(path=(*path, name), problem="is required and missing") for name in absent))


def unknown_name(name: str, valid: Collection[str], place: ConfigPath) -> Issue:
    """The issue for a key that is none of the valid ones."""
    known = ", ".join(sorted(valid)) or "no parameters"
    return Issue(
        path=place, at="key", problem="unknown key", found=repr(name), expected=known, nearest=nearest(name, valid)
    )


def _too_many(args: int, taken: int, path: ConfigPath) -> Issue:
    expected = f"at most {taken}" if taken else "none: give its parameters by name"
    return Issue(path=(*path, "_args_"), problem="too many positional arguments", found=str(args), expected=expected)
