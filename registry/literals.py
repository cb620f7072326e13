"""Numbers in nested lists, as tensors are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .issue import ConfigPath, Issue


def literal_issues(value: Any, path: ConfigPath) -> Iterator[Issue]:
    """What keeps a value from being numbers: one, a list of them, or rows of one length.

    >>> print(*literal_issues([[1, 2], [3]], ("weight",)))
    weight[1]: has another shape than the first row; found (1); expected (2)
    """
    wrong = list(_no_numbers(value, path, "a list of numbers"))
    yield from wrong or _ragged(value, path)


def _no_numbers(value: Any, path: ConfigPath, expected: str = "a number") -> Iterator[Issue]:
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _no_numbers(item, (*path, index))
    elif type(value) not in (int, float):
        found = "a mapping" if isinstance(value, Mapping) else repr(value)
        yield Issue(path=path, problem="has the wrong type", found=found, expected=expected)


def _ragged(value: Any, path: ConfigPath) -> Iterator[Issue]:
    if not isinstance(value, (list, tuple)):
        return
    for index, item in enumerate(value):
        yield from _ragged(item, (*path, index))
    shapes = [_shape(item) for item in value]
    for index, shape in enumerate(shapes):
        if shape != shapes[0]:
            problem = "has another shape than the first row"
            yield Issue(path=(*path, index), problem=problem, found=_shown(shape), expected=_shown(shapes[0]))


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)):
        return ()
    return (len(value), *(_shape(value[0]) if value else ()))


def _shown(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})" if shape else "a number"
