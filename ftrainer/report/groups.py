"""Runs that belong together: seeds of one configuration, whether they ran in one process or one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from ftrainer.components.loggers.drawing import finite_points, running_mean, smoothing_reach
from ftrainer.components.loggers.outcome import SEED, value_text
from registry import ConfigError, Issue, nearest

from .runs import MISSING, Run, figure_order

OWN = ("run.seed", "run.name", "run.out_dir", "run.resume_from")
"""What may differ between seeds of one configuration."""


@attrs.frozen
class Trace:
    """One seed's curve: steps (N,) and finite values (N,)."""

    steps: np.ndarray
    values: np.ndarray


@attrs.frozen(kw_only=True, eq=False)
class Group:
    """Seeds of one configuration.

    Attributes:
        label: what tells it from the other groups.
        runs: the runs, or the one run whose members they are.
        members: in the latter case which of its members.
    """

    label: str
    runs: tuple[Run, ...]
    members: tuple[int, ...] = ()

    @property
    def n(self) -> int:
        """How many seeds there are."""
        return len(self.members) or len(self.runs)

    @property
    def figures(self) -> list[str]:
        """What any of the runs logged."""
        return sorted({figure for run in self.runs for figure in run.figures}, key=figure_order)

    def traces(self, figure: str) -> list[Trace]:
        """A figure's curve of each seed that has one."""
        wanted = {str(member) for member in self.members} or None
        curves = [
            finite_points(*series)
            for run in self.runs
            for key, series in run.series(figure).items()
            if wanted is None or key.member in wanted
        ]
        return [Trace(steps, values) for steps, values in curves if len(steps)]

    def finals(self, figure: str) -> list[float]:
        """Each seed's last finite value."""
        return [float(trace.values[-1]) for trace in self.traces(figure)]


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs by configuration, seeds and names apart; members of replicated runs by their swept values."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(json.dumps(shared(run), sort_keys=True, default=str), []).append(run)
    together = [(members, part) for members in alike.values() for part in parts(members)]
    labels = labels_of([(own, part) for own, part in together])
    return [
        Group(label=label, runs=part.runs, members=part.members)
        for label, (_, part) in zip(labels, together, strict=True)
    ]


@attrs.frozen(kw_only=True, eq=False)
class Part:
    """A group before it has its label; `values` are swept ones, as text."""

    runs: tuple[Run, ...]
    members: tuple[int, ...] = ()
    values: Mapping[str, str] = attrs.field(factory=dict)


def parts(runs: Sequence[Run]) -> Iterator[Part]:
    """The groups in runs of one configuration: all plain runs, and of each replicated one each row of swept values."""
    plain = tuple(run for run in runs if run.outcome is None)
    if plain:
        yield Part(runs=plain)
    for run in runs:
        if run.outcome is not None:
            paths = run.outcome.swept()
            for key, who in run.outcome.rows().items():
                texts = dict(zip(paths, map(value_text, key), strict=True))
                yield Part(runs=(run,), members=tuple(who), values=texts)


def labels_of(together: Sequence[tuple[Sequence[Run], Part]]) -> list[str]:
    """A label for each group: what its configuration has different if that is short, else the name of its run."""
    tables = [{**shared(part.runs[0]), **part.values} for _, part in together]
    paths = [path for path in differing(tables) if path not in ("trainer.max_steps",)]
    names = [part.runs[0].name for _, part in together]
    if len(set(names)) == len(names) and all(len(part.runs) == 1 and not part.values for _, part in together):
        labels = names
    elif 0 < len(paths) <= 3:
        short = {path: path.rpartition(".")[2] for path in paths}
        labels = [
            " ".join(f"{short[path]}={value_text(table.get(path, MISSING))}" for path in paths) for table in tables
        ]
    else:
        labels = [" ".join([name, *(f"{path.rpartition('.')[2]}={value}" for path, value in part.values.items())])
                  for name, (_, part) in zip(names, together, strict=True)]  # fmt: skip
    labels = [f"{label} ({n} seeds)" if (n := len(part.members) or len(part.runs)) > 1 else label
              for label, (_, part) in zip(labels, together, strict=True)]  # fmt: skip
    return unique(labels, [str(part.runs[0].path) for _, part in together])


def unique(labels: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Labels with the run's path where two would be the same.

    >>> unique(["a", "b", "a"], ["x/1", "x/2", "x/3"])
    ['a (x/1)', 'b', 'a (x/3)']
    """
    places = zip(labels, paths, strict=True)
    return [f"{label} ({path})" if labels.count(label) > 1 else label for label, path in places]


def shared(run: Run) -> dict[str, Any]:
    """A configuration by dotted path without what seeds of it may have of their own."""
    flat = run.flat
    own = str(flat.get("run.out_dir") or "")
    kept = {path: value for path, value in flat.items() if path not in OWN and not path.startswith("templates")}
    return {path: _relative(value, own) for path, value in kept.items()}


def _relative(value: Any, out_dir: str) -> Any:
    inside = isinstance(value, str) and bool(out_dir) and (value == out_dir or value.startswith(f"{out_dir}/"))
    return "${run.out_dir}" + value[len(out_dir) :] if inside else value


def differing(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """The paths at which some of the tables differ, in the order in which they first appear.

    >>> differing([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}])
    ['b', 'c']
    """
    paths = dict.fromkeys(path for table in tables for path in table)
    return [path for path in paths if any(_unlike(table, tables[0], path) for table in tables[1:])]


def _unlike(a: Mapping[str, Any], b: Mapping[str, Any], path: str) -> bool:
    return path not in a or path not in b or a[path] != b[path]


def mean_and_band(traces: Sequence[Trace]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean over the seeds that have a value at a step, and one standard deviation (of a sample) to each side of it.

    The band stays within the seeds' own range, so that it has a place on a logarithmic axis wherever they have one.

    Returns:
        Steps (N,), mean (N,), low (N,) and high (N,).

    >>> steps, mean, low, high = mean_and_band([Trace(np.array([1, 2]), np.array([1.0, 2.0])),
    ...                                         Trace(np.array([1, 2]), np.array([3.0, 2.0]))])
    >>> mean.tolist(), low.tolist(), high.tolist()
    ([2.0, 2.0], [1.0, 2.0], [3.0, 2.0])
    """
    steps = np.unique(np.concatenate([trace.steps for trace in traces]))
    table = np.full((len(traces), len(steps)), np.nan)
    for row, trace in zip(table, traces, strict=True):
        row[np.searchsorted(steps, trace.steps)] = trace.values
    there = np.isfinite(table)
    count = there.sum(axis=0)
    mean = np.where(there, table, 0.0).sum(axis=0) / count
    square = (np.where(there, table - mean, 0.0) ** 2).sum(axis=0)
    sd = np.sqrt(square / np.maximum(count - 1, 1))
    lowest, highest = np.nanmin(table, axis=0), np.nanmax(table, axis=0)
    return steps, mean, np.maximum(mean - sd, lowest), np.minimum(mean + sd, highest)


def smoothed(traces: Sequence[Trace]) -> tuple[list[Trace], int]:
    """Seeds' curves as running means of one reach where any of them is noisy, and that reach; 0 where none is."""
    reach = max(smoothing_reach(trace.values) for trace in traces)
    return [Trace(t.steps, running_mean(t.values, reach)) if reach else t for t in traces], reach


def chosen_figures(groups: Sequence[Group], asked: Sequence[str]) -> list[str]:
    """The figures to show: all, or those asked for, as `split/name` or, for every split that has it, as `name`.

    Raises:
        ConfigError: nothing was logged yet, or not what was asked for; the error names the nearest figures.
    """
    known = sorted({figure for group in groups for figure in group.figures}, key=figure_order)
    if not known:
        paths = ", ".join(str(run.path) for group in groups for run in group.runs)
        raise ConfigError([Issue(problem="nothing was logged yet", found=paths)])
    names = {figure.partition("/")[2] for figure in known}
    unknown = [name for name in asked if name not in known and name not in names]
    if unknown:
        raise ConfigError(
            Issue(problem="no run logged this metric", found=repr(name), expected="one of " + ", ".join(known),
                  nearest=nearest(name, [*known, *names]))
            for name in unknown
        )  # fmt: skip
    return [figure for figure in known if not asked or figure in asked or figure.partition("/")[2] in asked]


def lacking(groups: Sequence[Group], figures: Sequence[str]) -> Iterator[str]:
    """A sentence for each group that has not all of the figures that are shown."""
    for group in groups:
        missing = [figure for figure in figures if figure not in group.figures]
        if missing:
            yield f"{group.label} has no {', '.join(missing)}"


def title_of(groups: Sequence[Group]) -> str:
    """What all groups are runs of: their name, and what learner, optimizer and data they share."""
    names = list(dict.fromkeys(run.name for group in groups for run in group.runs))
    head = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}" if len(names) > 3 else ", ".join(names)
    tables = [shared(group.runs[0]) for group in groups]
    apart = set(differing(tables)) | {path for group in groups for values in rows_of_seeds(group) for path in values}
    keys = ("learner._type_", "optimizer._type_", "optimizer.lr", "optimizer.kwargs.lr", "data._type_")
    common = [path for path in keys if path in tables[0] and path not in apart]
    said = [f"lr {tables[0][path]}" if path.endswith("lr") else str(tables[0][path]) for path in common]
    return " · ".join([head, *said])


def rows_of_seeds(group: Group) -> list[dict[str, Any]]:
    """What sets each seed of a group apart: its run, and as a member its values."""
    if group.members and group.runs[0].outcome is not None:
        return [dict(group.runs[0].outcome.members[who]) for who in group.members]
    return [{SEED: run.resolved.get("run", "seed")} for run in group.runs]
