"""Errors as data: an `Issue` says what is wrong where; a `ConfigError` carries all of them at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import attrs

ConfigPath = tuple[str | int, ...]


@attrs.frozen(kw_only=True)
class Mark:
    """A place in a text: 1-based line and column, with the line itself for the caret."""

    file: str
    line: int
    column: int
    text: str = ""
    width: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@attrs.frozen(kw_only=True)
class Issue:
    """One thing that is wrong with a configuration.

    Attributes:
        path: keys and indices from the configuration's root to the node.
        problem: one sentence that names what is wrong.
        found: what stood there, already rendered (never a secret).
        expected: what would have been right.
        nearest: valid names that look like what was found, best first.
        hint: what to do about it.
        at: whether the caret belongs under the key or under the value.
        where: the place in the text; `ftrainer.config` fills it in.
    """

    path: ConfigPath = ()
    problem: str
    found: str | None = None
    expected: str | None = None
    nearest: tuple[str, ...] = ()
    hint: str | None = None
    at: Literal["key", "value"] = "value"
    where: Mark | None = None

    def under(self, prefix: ConfigPath) -> Issue:
        """The same issue, seen from further out."""
        return attrs.evolve(self, path=(*prefix, *self.path))

    def __str__(self) -> str:
        parts = [f"{self.where}: " if self.where else "", f"{dotted(self.path)}: " if self.path else "", self.problem]
        if self.found is not None:
            parts.append(f"; found {self.found}")
        if self.expected is not None:
            parts.append(f"; expected {self.expected}")
        if self.nearest:
            parts.append(f"; did you mean {' or '.join(repr(n) for n in self.nearest)}?")
        if self.hint:
            parts.append(f" ({self.hint})")
        return "".join(parts)


class ConfigError(Exception):
    """Every issue found in one pass over a configuration."""

    def __init__(self, issues: Iterable[Issue]):
        self.issues = tuple(issues)
        super().__init__("\n".join(str(issue) for issue in self.issues))


def invalid(problem: str, *field: str | int, **details: Any) -> ConfigError:
    """The error that a component raises about one of its own fields; `instantiate` adds the path to the component.

    >>> raise invalid("must be positive", "lr", found="-1.0")
    Traceback (most recent call last):
    registry.issue.ConfigError: lr: must be positive; found -1.0
    """
    return ConfigError([Issue(path=field, problem=problem, **details)])


def dotted(path: ConfigPath) -> str:
    """`('a', 'b', 0, 'c')` as a user writes it.

    >>> dotted(('callbacks', 0, 'save_dir'))
    'callbacks[0].save_dir'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(name: object, valid: Iterable[str], n: int = 3) -> tuple[str, ...]:
    """The valid names most like `name`, best first (difflib, case folded); what is no text is like nothing."""
    if not isinstance(name, str):
        return ()
    folded, wanted = {candidate.casefold(): candidate for candidate in valid}, name.casefold()
    close = difflib.get_close_matches(wanted, folded, n=n, cutoff=0.6)
    close.sort(key=lambda match: sorted(match) != sorted(wanted))  # letters that traded places come first
    return tuple(folded[match] for match in close)


def near_files(path: str | Path) -> tuple[str, ...]:
    """What lies where `path` would and has a name much like its own."""
    folder = Path(path).parent
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return tuple(str(folder / name) for name in nearest(Path(path).name, names))
