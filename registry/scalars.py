"""YAML scalars against annotations, without silent conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from .hints import describe, is_open, is_protocol
from .issue import ConfigPath, Issue, nearest

_KINDS: tuple[tuple[type, str], ...] = ((bool, "true or false"), (int, "an integer"), (float, "a float"), (str, "text"))


def read_scalar(node: Any, choices: tuple[Any, ...], path: ConfigPath) -> tuple[Any, tuple[Issue, ...]]:
    """A scalar as the first of several annotations that takes it, or what is wrong with it.

    An integer is taken for a float; nothing else is converted: `10.7` is no integer, `true` no number, `1` no text.

    >>> read_scalar(1, (float,), ())
    (1.0, ())
    >>> str(read_scalar(True, (float,), ("lr",))[1][0])
    'lr: has the wrong type; found True; expected a number'
    """
    exact = [choice for choice in choices if _takes(node, choice)]
    if exact:
        return _as(node, exact), ()
    return None, (_wrong(node, choices, path),)


def _takes(node: Any, hint: Any) -> bool:
    if is_open(hint):
        return True
    if get_origin(hint) is Literal:
        return any(node == choice and type(node) is type(choice) for choice in get_args(hint))
    if hint is type(None) or node is None:
        return node is None and hint is type(None)
    if hint is float:
        return type(node) is float or (type(node) is int and abs(node) <= 2**53)
    if hint is Path:
        return isinstance(node, str)
    if hint in (bool, int, str):
        return type(node) is hint
    return not _scalar(node) and (is_protocol(hint) or (isinstance(hint, type) and isinstance(node, hint)))


def _scalar(node: Any) -> bool:
    return node is None or isinstance(node, (bool, int, float, str))


def _as(node: Any, exact: list[Any]) -> Any:
    if type(node) in exact or any(is_open(choice) or get_origin(choice) is Literal for choice in exact):
        return node
    if float in exact and type(node) is int:
        return float(node)
    return Path(node) if Path in exact else node


def _wrong(node: Any, choices: tuple[Any, ...], path: ConfigPath) -> Issue:
    expected = " or ".join(dict.fromkeys(describe(choice) for choice in choices))
    literals = [str(name) for choice in choices if get_origin(choice) is Literal for name in get_args(choice)]
    names = nearest(node, literals) if isinstance(node, str) else ()
    problem = "is none of the choices" if literals and len(choices) <= 2 else "has the wrong type"
    return Issue(path=path, problem=problem, found=_shown(node), expected=expected, nearest=names)


def _shown(node: Any) -> str:
    return "null" if node is None else repr(node)
