"""Which names a pattern means: shared by freezing, initialisers, parameter groups and renaming."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

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
    found = tuple(name for name in names if fnmatchcase(name, pattern))
    if not found:
        raise invalid(
            "the pattern matches nothing", *field, found=repr(pattern),
            expected="a pattern for " + (", ".join(names[:6]) + (", …" if len(names) > 6 else "") or "names, but there are none"),
            nearest=nearest(pattern, names),
        )  # fmt: skip
    return found
