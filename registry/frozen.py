"""Whether a value is data for good: frozen, hashable, and nothing mutable inside."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from frozendict import frozendict

_FUNCTIONS = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, enum.Enum)


def standing_in_the_way(value: Any) -> str | None:
    """Which part of a value keeps it from being a frozen, hashable component; None where nothing does.

    >>> standing_in_the_way((1, "a", frozendict(b=2.0)))
    >>> standing_in_the_way(([1],))
    '[0] is a list, which can be changed'
    """
    return next(_obstacles(value, ""), None)


def _obstacles(value: Any, place: str) -> Iterator[str]:
    name = place.lstrip(".") or "the value"
    if isinstance(value, _FUNCTIONS):
        return
    if isinstance(value, functools.partial):
        yield from _obstacles((value.func, *value.args, *value.keywords.values()), place)
    elif isinstance(value, types.MethodType):
        yield from _obstacles(value.__self__, place)
    elif attrs.has(type(value)) or dataclasses.is_dataclass(value):
        yield from _inside_class(value, place, name)
    elif isinstance(value, (tuple, frozenset)):
        for index, item in enumerate(value):
            yield from _obstacles(item, f"{place}[{index}]")
    elif isinstance(value, frozendict):
        for key, item in value.items():
            yield from _obstacles(item, f"{place}[{key!r}]")
    elif type(value).__hash__ is None or isinstance(value, Mapping) or hasattr(value, "__dict__"):
        yield f"{name} is a {type(value).__name__}, which can be changed"


def _inside_class(value: Any, place: str, name: str) -> Iterator[str]:
    cls = type(value)
    if not _is_frozen(cls):
        yield f"{name} is a {cls.__name__}, whose class is not frozen"
        return
    if cls.__hash__ is None:
        yield f"{name} is a {cls.__name__}, whose class has no hash"
        return
    fields = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(value)
    for field in fields:
        yield from _obstacles(getattr(value, field.name), f"{place}.{field.name}")


def _is_frozen(cls: type) -> bool:
    if attrs.has(cls):
        return any(getattr(c.__setattr__, "__name__", "") == "_frozen_setattrs" for c in (cls,))
    return bool(cls.__dataclass_params__.frozen)  # type: ignore[attr-defined]
