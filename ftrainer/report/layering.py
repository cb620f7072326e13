"""Where the boxes of a directed graph without cycles go: in rows by their distance from the inputs, few lines crossing.

The method is Sugiyama, Tagawa & Toda's (1981): layers by longest path, long edges cut by way points, barycentres to
order each layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import attrs

SWEEPS = 8
GAP, ROW = 28.0, 92.0
WAY_POINT = 14.0
"""Room for a line that passes between boxes."""

Edge = tuple[str, str]


@attrs.frozen(kw_only=True)
class Layout:
    """Centres of boxes, and of the way points of each edge, in pixels; the size of all of it."""

    centres: Mapping[str, tuple[float, float]]
    ways: Mapping[Edge, Sequence[tuple[float, float]]]
    width: float
    height: float


def layout(widths: Mapping[str, float], edges: Sequence[Edge]) -> Layout:
    """Place boxes of these widths.

    >>> found = layout({"a": 50, "b": 50, "c": 50}, [("a", "b"), ("b", "c"), ("a", "c")])
    >>> [found.centres[name][1] for name in "abc"], len(found.ways["a", "c"])
    ([46.0, 138.0, 230.0], 3)
    """
    ranks = ranked(list(widths), edges)
    wide, chains = with_way_points(widths, edges, ranks)
    links = [pair for chain in chains.values() for pair in itertools.pairwise(chain)]
    rows = ordered(ranks, links)
    centres = placed(rows, wide)
    ways = {edge: [centres[name] for name in chain] for edge, chain in chains.items()}
    span = max(centres[row[-1]][0] + wide[row[-1]] / 2 for row in rows)
    return Layout(centres={name: centres[name] for name in widths}, ways=ways, width=span + GAP, height=ROW * len(rows))


def ranked(names: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    """The row of each box: below all that it reads. Names stand in an order in which they can be computed."""
    ranks: dict[str, int] = {}
    for name in names:
        ranks[name] = max((ranks[source] + 1 for source, target in edges if target == name), default=0)
    return ranks


def with_way_points(
    widths: Mapping[str, float], edges: Sequence[Edge], ranks: dict[str, int]
) -> tuple[dict[str, float], dict[Edge, list[str]]]:
    """Widths of boxes and way points, and each edge as the names that it passes; `ranks` learns the way points'."""
    wide, chains = dict(widths), {}
    for source, target in edges:
        points = [f"{source}\0{target}\0{rank}" for rank in range(ranks[source] + 1, ranks[target])]
        ranks |= {point: ranks[source] + 1 + at for at, point in enumerate(points)}
        wide |= dict.fromkeys(points, WAY_POINT)
        chains[source, target] = [source, *points, target]
    return wide, chains


def ordered(ranks: Mapping[str, int], links: Sequence[Edge]) -> list[list[str]]:
    """The rows, each sorted by where its neighbours stand, down and up again."""
    rows: list[list[str]] = [[] for _ in range(max(ranks.values()) + 1)]
    for name, rank in ranks.items():
        rows[rank].append(name)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        near: dict[str, list[str]] = {}
        for source, target in links:
            near.setdefault(target if down else source, []).append(source if down else target)
        for row in rows if down else rows[::-1]:
            places = _places(rows)
            middles = {name: _mean([places[other] for other in near.get(name, [name])]) for name in row}
            row.sort(key=middles.__getitem__)
    return rows


def placed(rows: Sequence[Sequence[str]], widths: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Centres, every row in the middle."""
    lengths = [sum(widths[name] for name in row) + GAP * (len(row) - 1) for row in rows]
    longest = max(lengths)
    centres: dict[str, tuple[float, float]] = {}
    for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        x = GAP + (longest - length) / 2
        for name in row:
            centres[name] = (x + widths[name] / 2, ROW * (index + 0.5))
            x += widths[name] + GAP
    return centres


def _places(rows: Sequence[Sequence[str]]) -> dict[str, float]:
    return {name: (at + 0.5) / len(row) for row in rows for at, name in enumerate(row)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
