"""A tree written as YAML 1.2 that reads back the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from .node import Node, scalar_text
from .scalars import read_plain

_BARE = re.compile(r"[A-Za-z0-9_./$][A-Za-z0-9_./$+\-]*( [A-Za-z0-9_./+\-]+)*")
_FLOAT_WITHOUT_DOT = re.compile(r"-?\d+e[+-]?\d+")


def to_yaml(root: Node, *, origin: bool = False) -> str:
    """A tree as YAML.

    Args:
        root: what to write; values from the environment are written as their expressions.
        origin: end each scalar's line with a comment that says where it was written.
    """
    return "\n".join(_block(root, 0, origin)) + "\n" if root.value else "{}\n"


def _block(node: Node, depth: int, origin: bool) -> Iterator[str]:
    indent = "  " * depth
    for key, child in node.children():
        head = f"{indent}- " if isinstance(key, int) else f"{indent}{_key(key)}:"
        if not child.value or not isinstance(child.value, (dict, list)) or child.shown is not None:
            yield f"{head}{'' if isinstance(key, int) else ' '}{_inline(child)}{_comment(child) if origin else ''}"
        elif isinstance(key, int):
            lines = list(_block(child, depth + 1, origin))
            yield f"{indent}- {lines[0].lstrip()}"
            yield from lines[1:]
        else:
            yield head
            yield from _block(child, depth + 1, origin)


def _comment(node: Node) -> str:
    if node.how == "override":
        return "  # override"
    return f"  # {node.place.source.name}:{node.place.line}" if node.place else ""


def _inline(node: Node) -> str:
    if node.shown is not None:
        return node.shown if _is_bare(node.shown) else quoted(node.shown)
    if isinstance(node.value, dict):
        return "{}"
    return "[]" if isinstance(node.value, list) else inline_scalar(node.value)


def inline_scalar(value: Any) -> str:
    """A scalar as YAML reads it back, text quoted where it must be.

    >>> [inline_scalar(value) for value in ("plain", "1e-3", "on", "a: b", 1e-05, True)]
    ['plain', '"1e-3"', 'on', '"a: b"', '1.0e-05', 'true']
    """
    if isinstance(value, float):
        text = scalar_text(value)
        return text.replace("e", ".0e") if _FLOAT_WITHOUT_DOT.fullmatch(text) else text
    if not isinstance(value, str):
        return scalar_text(value)
    escaped = value.replace("${", "$${")
    return escaped if _is_bare(escaped) else quoted(escaped)


def quoted(text: str) -> str:
    """Text in double quotes, with escapes for what does not print.

    >>> quoted("caf\\u00e9\\t\\x7f")
    '"café\\\\t\\\\x7f"'
    """
    return "".join(
        letter if letter.isprintable() else _escape(letter) for letter in json.dumps(text, ensure_ascii=False)
    )


def _escape(letter: str) -> str:
    code = ord(letter)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _key(key: str) -> str:
    return key if _is_bare(key) else quoted(key)


def _is_bare(text: str) -> bool:
    return bool(_BARE.fullmatch(text)) and text != "<<" and _reads_as_text(text)


def _reads_as_text(text: str) -> bool:
    try:
        return isinstance(read_plain(text), str)
    except ValueError:
        return False
