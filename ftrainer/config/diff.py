"""Two resolved configurations, compared by meaning: order of keys, files and anchors make no difference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import attrs

from registry.issue import ConfigPath, dotted

from .node import Node, plain, stable, summary


@attrs.frozen(kw_only=True)
class Change:
    """One difference; the side on which nothing stands is None."""

    path: ConfigPath
    how: Literal["added", "removed", "changed"]
    old: Node | None = None
    new: Node | None = None

    def __str__(self) -> str:
        sign = {"added": "+", "removed": "-", "changed": "~"}[self.how]
        sides = [f"{summary(node)}{_where(node)}" for node in (self.old, self.new) if node is not None]
        return f"{sign} {dotted(self.path)}: {' → '.join(sides)}"


def _where(node: Node) -> str:
    return f" ({node.place.source.name}:{node.place.line})" if node.place else ""


def diff(old: Node, new: Node, path: ConfigPath = ()) -> Iterator[Change]:
    """What distinguishes two trees, the deepest differing values only; `1` and `1.0` are the same number."""
    if type(old.value) is type(new.value) and isinstance(old.value, (dict, list)):
        before, after = dict(old.children()), dict(new.children())
        for key in [*before, *(key for key in after if key not in before)]:
            at = (*path, key)
            if key not in after:
                yield Change(path=at, how="removed", old=before[key])
            elif key not in before:
                yield Change(path=at, how="added", new=after[key])
            else:
                yield from diff(before[key], after[key], at)
    elif stable(plain(old)) != stable(plain(new)):
        yield Change(path=path, how="changed", old=old, new=new)
