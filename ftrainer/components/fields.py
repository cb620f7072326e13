"""Validators for fields: numbers, which may be 0-d tensors inside a trace and are then left alone, and files."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import attrs
from torch import Tensor

from registry.issue import invalid, near_files

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def is_off(value: Any) -> bool:
    """Whether a traceable number is a plain zero, so that its term can be left out; a traced value never is.

    >>> is_off(0.0), is_off(0.1)
    (True, False)
    """
    return not isinstance(value, Tensor) and value == 0


def must_exist(file: str, *field: str | int) -> None:
    """Raise where a field names no file.

    Raises:
        ConfigError: there is none; the issue lies at `field`.
    """
    if not Path(file).is_file():
        raise invalid("no such file", *field, found=file, nearest=near_files(file))


@contextmanager
def readable(file: str | Path, *field: str | int, expected: str | None = None) -> Iterator[None]:
    """Turn what reading a damaged or foreign file raises into an error about the field that names it.

    Raises:
        ConfigError: the file cannot be read, or not as what it should be.
    """
    try:
        yield
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, BadZipFile, zlib.error) as error:
        raise invalid(f"cannot be read: {error}", *field, found=str(file), expected=expected) from error


def _numbers(test: Callable[[float], bool], expected: str) -> Validator:
    def check(name: str, index: tuple[int, ...], value: Any) -> None:
        if isinstance(value, Tensor):
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise invalid("not a number", name, *index, found=repr(value), expected=expected)
        if not test(value):
            raise invalid("out of range", name, *index, found=repr(value), expected=expected)

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        del instance
        if isinstance(value, tuple):
            for i, item in enumerate(value):
                check(attribute.name, (i,), item)
        else:
            check(attribute.name, (), value)

    return validate


def number() -> Validator:
    """Any finite number, or a tuple of them."""
    return _numbers(math.isfinite, "a finite number")


def at_least(low: float) -> Validator:
    """A number, or a tuple of them, not below `low`."""
    return _numbers(lambda value: low <= value < math.inf, f"a number of at least {low}")


def above(low: float) -> Validator:
    """A number, or a tuple of them, greater than `low`."""
    return _numbers(lambda value: low < value < math.inf, f"a number above {low}")


def fraction() -> Validator:
    """A number, or a tuple of them, in [0, 1)."""
    return _numbers(lambda value: 0 <= value < 1, "a number in [0, 1)")


def between(low: float, high: float) -> Validator:
    """A number, or a tuple of them, in [low, high]."""
    return _numbers(lambda value: low <= value <= high, f"a number in [{low}, {high}]")


def count(low: int = 1) -> Validator:
    """A whole number, or a tuple of them, not below `low`."""

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        del instance
        for item in value if isinstance(value, tuple) else (value,):
            if type(item) is not int or item < low:
                raise invalid(
                    "out of range", attribute.name, found=repr(item), expected=f"a whole number from {low} up"
                )

    return validate


def one_of(*names: str | None) -> Validator:
    """One of some words, or None where that is among them."""

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        del instance
        if value not in names:
            raise invalid(
                "unknown choice",
                attribute.name,
                found=repr(value),
                expected=" or ".join(name or "null" for name in names),
            )

    return validate


def length(n: int) -> Validator:
    """A sequence of `n` items."""

    def validate(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        del instance
        if not isinstance(value, tuple) or len(value) != n:
            raise invalid("wrong length", attribute.name, found=repr(value), expected=f"{n} values")

    return validate
