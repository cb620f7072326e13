"""YAML 1.2 core scalars: what a plain word means."""

from __future__ import annotations

import math
import re
from typing import Any

_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMERIC = frozenset("+-.0123456789")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_NAN = (".nan", ".NaN", ".NAN")
MAX_DIGITS = 400


def read_plain(text: str) -> Any:
    """An unquoted scalar as null, boolean, integer, float or text.

    >>> [read_plain(text) for text in ("1e-3", "on", "0o17", "0x1F", "08", "~", "1_000")]
    [0.001, 'on', 15, 31, 8, None, '1_000']

    Raises:
        ValueError: a number too large to hold.
    """
    if text in _WORDS:
        return _WORDS[text]
    return _number(text) if text[0] in _NUMERIC else text


def _number(text: str) -> Any:
    if _INTEGER.fullmatch(text) or _BASED.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise ValueError(f"an integer of more than {MAX_DIGITS} digits")
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)
    if _FLOAT.fullmatch(text):
        if math.isinf(float(text)):
            raise ValueError("too large for a float; .inf is infinity")
        return float(text)
    infinite = _INFINITE.fullmatch(text)
    if infinite:
        return -math.inf if infinite[1] == "-" else math.inf
    return math.nan if text in _NAN else text


def read_tagged(tag: str, text: str) -> Any:
    """A scalar with an explicit core tag: `!!str 1` is the text `1`.

    Raises:
        ValueError: the text is not of that kind, or the tag is none of the core ones.
    """
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "bool": (bool,), "null": (type(None),)}
    name = tag.removeprefix("tag:yaml.org,2002:")
    if name == "str" or tag == "!":
        return text
    if name not in kinds or name == tag:
        raise ValueError("tags that would construct objects are refused")
    value = read_plain(text)
    if type(value) not in kinds[name]:
        raise ValueError(f"is tagged {name} and is none")
    return float(value) if name == "float" else value
