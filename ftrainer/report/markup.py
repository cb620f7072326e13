"""Pieces of HTML. Text is escaped here and nowhere else; what is markup already says so by its type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ftrainer.components.loggers.drawing import DASH_ARRAYS


class Markup(str):
    """Text that is HTML."""

    __slots__ = ()


def html(value: object) -> Markup:
    """A value as HTML.

    >>> html("a < b"), html(Markup("<b>"))
    ('a &lt; b', '<b>')
    """
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def tag(name: str, *inner: object, **attributes: str) -> Markup:
    """An element; an attribute's trailing `_` is dropped.

    >>> tag("td", "a&b", class_="text")
    '<td class="text">a&amp;b</td>'
    """
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{given}>{''.join(map(html, inner))}</{name}>")


def joined(pieces: Iterable[object], by: str = "") -> Markup:
    """Pieces one after another."""
    return Markup(by.join(map(html, pieces)))


def table(
    head: Sequence[object], rows: Iterable[Sequence[object]], text: Sequence[int] = (), **attributes: str
) -> Markup:
    """A table that scrolls sideways where it is too wide.

    Args:
        head: the columns' names.
        rows: cells.
        text: the columns that hold prose: left-aligned and wrapped.
        attributes: of the table.
    """
    body = (tag("tr", *(tag("td", cell, **_prose(at in text)) for at, cell in enumerate(row))) for row in rows)
    header = tag("thead", tag("tr", *(tag("th", name, **_prose(at in text)) for at, name in enumerate(head))))
    return tag("div", tag("table", header, tag("tbody", *body), **attributes), class_="wide")


def _prose(is_text: bool) -> dict[str, str]:
    return {"class_": "text"} if is_text else {}


def section(anchor: str, title: str, *inner: object) -> Markup:
    """A part of the page."""
    return tag("section", tag("h2", title), *inner, id=anchor)


def sample(colour: str, style: str) -> Markup:
    """A short piece of a line, as a legend shows it."""
    dashes = DASH_ARRAYS[style]
    line = f'<line x1="1" y1="5" x2="25" y2="5" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dashes}"/>'
    return Markup(f'<svg width="26" height="10" aria-hidden="true">{line}</svg>')
