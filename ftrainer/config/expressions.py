"""The text forms of interpolation: `${a.b}`, `${env:VAR}`, `${env:int:VAR,8}`, and `$${` for a literal `${`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from .scalars import read_plain


class Expression(NamedTuple):
    """One `${…}`: its text between the braces, and where it stands in the scalar."""

    text: str
    start: int
    end: int


def find_expressions(text: str) -> list[Expression]:
    """The interpolations of a scalar, in order; `$${` is not one.

    >>> [found.text for found in find_expressions('${a}/$${b}/${env:json:X,{"k": 1}}')]
    ['a', 'env:json:X,{"k": 1}']

    Raises:
        ValueError: with the column as second argument, where a `${` is not closed or holds another one.
    """
    found, position = [], text.find("${")
    while position >= 0:
        if position > 0 and text[position - 1] == "$":
            position = text.find("${", position + 2)
            continue
        end = _closing(text, position)
        found.append(Expression(text[position + 2 : end], position, end + 1))
        position = text.find("${", end + 1)
    return found


def _closing(text: str, start: int) -> int:
    depth = 0
    for index in range(start + 1, len(text)):
        if text[index] == "{":
            if depth and text[index - 1] == "$":
                raise ValueError("an interpolation holds another one", start)
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index
    raise ValueError("an interpolation is not closed: no } follows ${", start)


def unescape(text: str) -> str:
    """Text with `$${` written as `${`."""
    return text.replace("$${", "${")


class Env(NamedTuple):
    """A parsed `env:` expression; `convert` is the name of a typed form, or None for the raw text."""

    variable: str
    convert: str | None
    default: str | None


def read_env(text: str) -> Env:
    """What follows `env:`.

    >>> read_env("int:WIDTH,32")
    Env(variable='WIDTH', convert='int', default='32')

    Raises:
        ValueError: no variable is named, or the type is unknown.
    """
    name, comma, default = text.partition(",")
    convert, colon, variable = name.rpartition(":")
    if colon and convert not in CONVERSIONS:
        raise ValueError(f"unknown type {convert!r} in ${{env:…}}")
    if not variable.strip():
        raise ValueError("${env:…} names no variable")
    return Env(variable.strip(), convert or None, default if comma else None)


def _to_int(text: str) -> int:
    if not text.lstrip("+-").isdecimal() or len(text) > 400:
        raise ValueError
    return int(text)


def _to_float(text: str) -> float:
    value = read_plain(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError
    number = float(value)
    if math.isinf(number) and "inf" not in text.casefold():
        raise ValueError
    return number


def _to_bool(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.casefold() not in words:
        raise ValueError
    return words[text.casefold()]


def _to_json(text: str) -> Any:
    return json.loads(text)


CONVERSIONS: dict[str, Callable[[str], Any]] = {"int": _to_int, "float": _to_float, "bool": _to_bool, "json": _to_json}


def convert_env(env: Env, text: str, given: bool = True) -> Any:
    """The text of a variable in the form that was asked for; typed forms strip blanks first, the raw one nothing.

    >>> convert_env(Env("N", "int", None), " 08 "), convert_env(Env("N", None, None), " 08 ")
    (8, ' 08 ')

    Args:
        env: the expression.
        text: the variable's value, or the default.
        given: whether the variable was set.

    Raises:
        ValueError: the text has not that form. The message does not repeat the text.
    """
    if env.convert is None:
        return text
    try:
        return CONVERSIONS[env.convert](text.strip())
    except (ValueError, OverflowError, RecursionError):
        what = f"the environment variable {env.variable!r}" if given else f"the default of {env.variable!r}"
        raise ValueError(f"{what} holds no {env.convert}") from None
