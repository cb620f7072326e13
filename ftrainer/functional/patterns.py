"""Which names a pattern means: shared by freezing, initialisers, parameter groups and renaming."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping

from registry.issue import invalid, nearest


def match(pattern: str, names: Iterable[str], *field: str | int) -> tuple[str, ...]:
    """The names that a shell pattern means (`fnmatch`: `*` any text, `?` one character, `[ab]` one of these), in order.

    Args:
        pattern: for instance `*.bias`; case matters.
        names: what there is to choose from, for instance the dotted names of parameters.
        field: the place of the pattern inside its component, for the error.

    Raises:
        ConfigError: the pattern matches nothing.

    >>> match("*.bias", ["0.weight", "0.bias", "2.bias"])
    ('0.bias', '2.bias')
    """
    names = tuple(names)
    found = tuple(name for name in names if fnmatch.fnmatchcase(name, pattern))
    if not found:
        shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
        expected = f"a pattern for {shown}" if names else "names, but there are none"
        raise invalid(
            "the pattern matches nothing",
            *field,
            found=repr(pattern),
            expected=expected,
            nearest=nearest(pattern, names),
        )
    return found


def rename(rules: Mapping[str, str], names: Iterable[str], *field: str | int) -> dict[str, str]:
    """New names by pattern: the first rule that fits applies, and each `*` on its right is what one on its left took.

    Args:
        rules: pattern to replacement, for instance `{"backbone.*": "*"}`.
        names: what to rename; names that no rule fits stay.
        field: the place of the rules inside their component, for the error.

    Raises:
        ConfigError: a pattern matches nothing or has too few `*`, or two names become one.

    >>> rename({"net.*.w": "*.weight"}, ["net.0.w", "head.b"])
    {'net.0.w': '0.weight', 'head.b': 'head.b'}
    """
    names = tuple(names)
    for pattern, replacement in rules.items():
        match(pattern, names, *field, pattern)
        if replacement.count("*") > pattern.count("*"):
            raise invalid("has more * than its pattern", *field, pattern, found=repr(replacement))
    renamed = {name: _renamed(rules, name) for name in names}
    first: dict[str, str] = {}
    for old, new in renamed.items():
        if first.setdefault(new, old) != old:
            raise invalid(f"{first[new]!r} and {old!r} both become {new!r}", *field)
    return renamed


def _renamed(rules: Mapping[str, str], name: str) -> str:
    for pattern, replacement in rules.items():
        found = re.fullmatch("(.*)".join(_literal(part) for part in pattern.split("*")), name)
        if found:
            *pieces, rest = replacement.split("*")
            return "".join(piece + taken for piece, taken in zip(pieces, found.groups(), strict=False)) + rest
    return name


def _literal(part: str) -> str:
    """The regular expression of a piece of a shell pattern that has no `*`."""
    return fnmatch.translate(part).removeprefix("(?s:").removesuffix(r")\Z")
