"""Annotations as a configuration meets them: which values they take, and how to name them to a user."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import attrs

from .spec import Deferred

SCALARS: tuple[type, ...] = (bool, int, float, str, type(None), Path)
_WORDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    type(None): "null",
    Path: "a path",
    Deferred: "a spec with _type_",
}


def plain(hint: Any) -> bool:
    """Whether a parameter takes YAML as it stands."""
    return get_origin(hint) is Annotated and "plain" in hint.__metadata__


def bare(hint: Any) -> Any:
    """A hint without `Annotated`, `Final`, `NewType` and type variables."""
    while True:
        if get_origin(hint) in (Annotated, typing.Final, typing.ClassVar):
            hint = get_args(hint)[0]
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif isinstance(hint, TypeVar):
            hint = hint.__bound__ or Any
        else:
            return hint


def options(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the hint alone.

    >>> options(int | None)
    (<class 'int'>, <class 'NoneType'>)
    """
    hint = hint if plain(hint) else bare(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(option for member in get_args(hint) for option in options(member))
    return (type(None),) if hint is None else (hint,)


def is_sequence(hint: Any) -> bool:
    """Whether a hint takes a YAML list element by element."""
    base = get_origin(hint) or hint
    return (
        isinstance(base, type) and base is not str and issubclass(base, (list, tuple, Sequence, set, frozenset))
    ) or (base in (Collection, typing.Iterable) or getattr(base, "__name__", "") == "Iterable")


def is_mapping(hint: Any) -> bool:
    """Whether a hint takes a YAML mapping entry by entry."""
    base = get_origin(hint) or hint
    return isinstance(base, type) and issubclass(base, Mapping)


def is_open(hint: Any) -> bool:
    """Whether a hint says nothing."""
    return hint is Any or hint is object or isinstance(hint, str)


def is_protocol(hint: Any) -> bool:
    """Whether a hint is a protocol, whose members stand for the class."""
    return isinstance(hint, type) and bool(getattr(hint, "_is_protocol", False))


def members(protocol: type) -> tuple[str, ...]:
    """The names that an implementation must have."""
    names: dict[str, None] = {}
    for cls in protocol.__mro__:
        if getattr(cls, "_is_protocol", False):
            names |= dict.fromkeys([*inspect.get_annotations(cls), *vars(cls)])
    return tuple(name for name in names if name == "__call__" or not name.startswith("_"))


def lacks(cls: type, protocol: type) -> tuple[str, ...]:
    """The members of a protocol that a class does not have."""
    fields = {field.name for field in attrs.fields(cls)} if attrs.has(cls) else set()
    return tuple(name for name in members(protocol) if name not in fields and not hasattr(cls, name))


def describe(hint: Any) -> str:
    """A hint as a user would say it.

    >>> describe(int | None), describe(Literal["min", "max"]), describe(tuple[float, ...])
    ('an integer or null', "'min' or 'max'", 'a list of numbers')
    """
    return " or ".join(dict.fromkeys(_describe(option) for option in options(hint)))


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(repr(choice) if choice is not None else "null" for choice in get_args(hint))
    if is_open(hint) or plain(hint):
        return "anything"
    if hint in _WORDS:
        return _WORDS[hint]
    if is_mapping(hint):
        return "a mapping"
    if is_sequence(hint):
        return _describe_sequence(get_args(hint))
    if isinstance(hint, type):
        return f"{hint.__name__} (a spec with _type_)"
    return "a function (a spec with _type_)" if get_origin(hint) is Callable else str(hint)


def _describe_sequence(args: tuple[Any, ...]) -> str:
    inner = [_describe_plainly(arg) for arg in args if arg is not Ellipsis]
    if len(args) > 1 and args[-1] is not Ellipsis and len(set(inner)) > 1:
        return "a list of " + ", ".join(inner)
    one = inner[0] if inner else "anything"
    plural = {
        "a number": "numbers",
        "an integer": "integers",
        "text": "texts",
        "a spec with _type_": "specs with _type_",
    }
    count = f"{len(args)} " if len(args) > 1 and args[-1] is not Ellipsis and one in plural else ""
    return "a list" if one == "anything" else f"a list of {count}{plural.get(one, one)}"


def _describe_plainly(hint: Any) -> str:
    return " or ".join(dict.fromkeys(_describe(option) for option in options(hint)))


def fits(value: Any, hint: Any) -> bool:
    """Whether a built value suits a hint, as far as can be told without looking inside containers."""
    return any(_fits(value, option) for option in options(hint))


def _fits(value: Any, hint: Any) -> bool:
    base = get_origin(hint) or hint
    if is_open(hint) or plain(hint):
        return True
    if base is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(hint))
    if is_protocol(base):
        return not lacks(type(value), base) or not any(not hasattr(value, name) for name in members(base))
    if base in (int, float):
        return type(value) is int or (base is float and type(value) is float)
    if is_sequence(hint):
        return isinstance(value, (list, tuple, base) if isinstance(base, type) else (list, tuple))
    return isinstance(value, base) if isinstance(base, type) else callable(value)


def class_mismatch(cls: type, hint: Any) -> str | None:
    """Why instances of `cls` cannot suit a hint; None where they can, or where only the instance will tell."""
    reasons = [_mismatch(cls, option) for option in options(hint)]
    return None if None in reasons else next(reason for reason in reasons if reason is not None)


def _mismatch(cls: type, hint: Any) -> str | None:
    base = get_origin(hint) or hint
    if is_open(hint) or plain(hint) or base is Callable or hint is Deferred or not isinstance(base, type):
        return None
    if base is Literal or base in SCALARS:
        return f"{cls.__name__} is not {describe(hint)}"
    if is_protocol(base):
        absent = lacks(cls, base)
        return f"{cls.__name__} is no {base.__name__}: it has no `{'`, `'.join(absent)}`" if absent else None
    return None if issubclass(cls, base) else f"{cls.__name__} is no {base.__name__}"
