"""The section `replicate:`: which seeds, and which values of which fields, one run becomes many by."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs
from frozendict import frozendict

from registry.issue import ConfigError, ConfigPath, Issue, invalid
from registry.spec import Plain, component

from .overrides import split_path

Values = Mapping[str, Any]
"""What sets one run apart from others, by config path."""
SEED = "run.seed"
SPACES = ("logspace", "linspace")


@attrs.frozen(kw_only=True)
class Group:
    """Members that are trained together.

    Attributes:
        values: what all of them share, by the paths that `groups` names; empty where it names none.
        members: what sets each apart, `run.seed` first.
    """

    values: Values
    members: tuple[Values, ...]

    @property
    def name(self) -> str:
        """A directory's name for the group.

        >>> Group(values={"model.width": 32, "data.path": "a/b"}, members=()).name
        'width=32,path=a_b'
        """
        pairs = (f"{path.rpartition('.')[2]}={value}" for path, value in self.values.items())
        return ",".join(pairs).replace("/", "_").replace(" ", "")


@component
class Replicate:
    """The section `replicate:`.

    Attributes:
        seeds: how many, from `run.seed` upwards, or a list of them.
        over: values by config path: a list, or `{logspace: [first, last, n]}` or `{linspace: […]}`.
        combine: `product` pairs every value of one path with every value of the others, `zip` the first with the
            first, the second with the second. Every such row runs with every seed.
        groups: the paths of `over` whose values cannot share a step; each is trained by itself, one after another.
        data_order: `own` orders the data for each member by its own seed, `shared` for all by the first one's, and
            gathers each batch once.
        strategy: `vmap` moves all members in one step, `loop` one after another; `auto` times both and takes the
            faster one.
        chunk: how many members one step moves at most; `auto` takes as many as memory allows.
        members: `[first, end]` of those to train, counted from 0 and without `end`, where others are trained elsewhere.
    """

    seeds: int | tuple[int, ...] = 1
    over: Plain = frozendict()
    combine: Literal["product", "zip"] = "product"
    groups: tuple[str, ...] = ()
    data_order: Literal["own", "shared"] = "own"
    strategy: Literal["auto", "vmap", "loop"] = "auto"
    chunk: int | Literal["auto"] = "auto"
    members: tuple[int, int] | None = None

    def __attrs_post_init__(self) -> None:
        issues = [*_seed_issues(self.seeds), *_over_issues(self.over), *_group_issues(self.groups, self.over)]
        if self.chunk != "auto" and self.chunk < 1:
            issues.append(Issue(path=("chunk",), problem="must be at least 1", found=str(self.chunk)))
        if not issues and self.combine == "zip":
            issues += _length_issues({path: spread(values) for path, values in self.over.items()})
        if issues:
            raise ConfigError(issues)

    def seeds_from(self, first: int) -> tuple[int, ...]:
        """The seeds; a number of them counts from `run.seed`."""
        return tuple(range(first, first + self.seeds)) if isinstance(self.seeds, int) else self.seeds

    def rows(self) -> list[dict[str, Any]]:
        """Every combination of values, by config path, the first path slowest."""
        lists = [spread(values) for values in self.over.values()]
        combined = zip(*lists, strict=True) if self.combine == "zip" and lists else itertools.product(*lists)
        return [dict(zip(self.over, row, strict=True)) for row in combined]

    def split(self, first_seed: int) -> tuple[Group, ...]:
        """The groups in the order of their values' first appearance; one with all members where `groups` is empty."""
        found: dict[Any, list[Values]] = {}
        for row in self.rows():
            shared = tuple((path, row[path]) for path in self.groups)
            own = {path: value for path, value in row.items() if path not in self.groups}
            found.setdefault(shared, []).extend({SEED: seed, **own} for seed in self.seeds_from(first_seed))
        start, stop = self.members or (0, None)
        return tuple(Group(values=dict(shared), members=tuple(own[start:stop])) for shared, own in found.items())


def spread(values: Any) -> list[Any]:
    """The values that a path takes.

    >>> spread({"logspace": [0.1, 10.0, 3]}), spread([1, 2])
    ([0.1, 1.0, 10.0], [1, 2])
    """
    if not isinstance(values, Mapping):
        return list(values)
    ((kind, (first, last, n)),) = values.items()
    parts = [i / (n - 1) for i in range(n)]
    inner = parts[1:-1]
    if kind == "linspace":
        return [float(first), *(first + (last - first) * t for t in inner), float(last)]
    return [float(first), *(round_trip(first * (last / first) ** t) for t in inner), float(last)]


def round_trip(value: float) -> float:
    """A number to 12 digits, as a person would have written it."""
    return float(f"{value:.12g}")


def overlaps(a: str, b: str) -> bool:
    """Whether one config path is the other one or lies inside it.

    >>> overlaps("optimizer.betas", "optimizer.betas[0]"), overlaps("optimizer.lr", "optimizer.lr_decay")
    (True, False)
    """
    first, second = split_path(a)[0], split_path(b)[0]
    n = min(len(first), len(second))
    return first[:n] == second[:n]


def _seed_issues(seeds: int | tuple[int, ...]) -> Iterator[Issue]:
    if isinstance(seeds, int):
        if seeds < 1:
            yield Issue(path=("seeds",), problem="must be at least 1", found=str(seeds))
        return
    if not seeds:
        yield Issue(path=("seeds",), problem="names no seed", expected="a number of seeds, or a list of them")
    for index, seed in enumerate(seeds):
        if not 0 <= seed < 2**63:
            yield Issue(path=("seeds", index), problem="must lie between 0 and 2**63 - 1", found=str(seed))
        if seed in seeds[:index]:
            yield Issue(path=("seeds", index), problem="is there twice", found=str(seed))


def _over_issues(over: Any) -> Iterator[Issue]:
    if not isinstance(over, Mapping):
        expected = "a mapping from config paths to lists of values"
        yield Issue(path=("over",), problem="has the wrong type", found=repr(over), expected=expected)
        return
    for path, values in over.items():
        yield from _path_issues(path, over)
        yield from _values_issues(path, values)


def _path_issues(path: str, over: Mapping[str, Any]) -> Iterator[Issue]:
    try:
        parts, _ = split_path(path)
    except ValueError as error:
        yield Issue(path=("over", path), at="key", problem=str(error))
        return
    if parts == ("run", "seed"):
        yield Issue(path=("over", path), at="key", problem="is swept by `seeds`", hint="name the seeds there")
    for other in itertools.takewhile(lambda other: other != path, over):
        if _is_path(other) and overlaps(path, other):
            yield Issue(path=("over", path), at="key", problem=f"is swept twice, by {other!r} too")


def _is_path(text: str) -> bool:
    try:
        return bool(split_path(text))
    except ValueError:
        return False


def _values_issues(path: str, values: Any) -> Iterator[Issue]:
    place: ConfigPath = ("over", path)
    if isinstance(values, Mapping):
        yield from _space_issues(place, values)
    elif not isinstance(values, tuple):
        expected = "a list of values, {logspace: [first, last, n]} or {linspace: [first, last, n]}"
        yield Issue(path=place, problem="has the wrong type", found=repr(values), expected=expected)
    elif not values:
        yield Issue(path=place, problem="names no value", expected="at least one")


def _space_issues(place: ConfigPath, space: Mapping[str, Any]) -> Iterator[Issue]:
    kinds = [kind for kind in space if kind in SPACES]
    if len(space) != 1 or not kinds:
        yield Issue(path=place, problem="is no range", found=", ".join(map(str, space)), expected=" or ".join(SPACES))
        return
    values, where = space[kinds[0]], (*place, kinds[0])
    numeric = isinstance(values, tuple) and all(isinstance(v, (int, float)) and math.isfinite(v) for v in values)
    if not numeric or len(values) != 3 or not isinstance(values[2], int) or values[2] < 2:
        yield Issue(path=where, problem="is no range", found=repr(values), expected="[first, last, n] with n from 2 up")
    elif kinds == ["logspace"] and not (values[0] > 0 and values[1] > 0):
        yield Issue(path=where, problem="has an end that is not positive", found=repr(values))


def _group_issues(groups: tuple[str, ...], over: Any) -> Iterator[Issue]:
    for index, path in enumerate(groups):
        if not isinstance(over, Mapping) or path not in over:
            expected = "one of " + ", ".join(over) if isinstance(over, Mapping) and over else "a path that `over` names"
            yield Issue(path=("groups", index), problem="is not swept", found=repr(path), expected=expected)


def _length_issues(lists: Mapping[str, list[Any]]) -> Iterator[Issue]:
    if len({len(values) for values in lists.values()}) > 1:
        found = ", ".join(f"{path}: {len(values)}" for path, values in lists.items())
        yield Issue(path=("over",), problem="lists of unequal length cannot be zipped", found=found,
                    hint="set `combine: product`, or give all as many values")  # fmt: skip


def config_with(config: Mapping[str, Any], values: Values) -> Mapping[str, Any]:
    """A resolved configuration with values at their paths, as one that was never swept.

    >>> config_with(frozendict(optimizer=frozendict(lr=0.1), replicate=frozendict()), {"optimizer.lr": 0.2})
    frozendict.frozendict({'optimizer': frozendict.frozendict({'lr': 0.2})})
    """
    for path, value in values.items():
        config = _put(config, split_path(path)[0], value)
    return frozendict({name: section for name, section in config.items() if name != "replicate"})


def _put(node: Any, parts: Sequence[str], value: Any) -> Any:
    if not parts:
        return value
    name, *rest = parts
    if isinstance(node, tuple):
        index = int(name)
        return (*node[:index], _put(node[index], rest, value), *node[index + 1 :])
    return frozendict({**(node or {}), name: _put((node or {}).get(name), rest, value)})


def not_sweepable(path: str, problem: str, **details: Any) -> ConfigError:
    """The error about one path of `over` that cannot share a step, with the way out."""
    hint = f"write `groups: [{path}]` under `replicate` to train each value by itself"
    return invalid(problem, "replicate", "over", path, at="key", hint=hint, **details)
