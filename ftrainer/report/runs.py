"""Runs as their directories tell of them, whatever state they were left in. Nothing here loads torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from ftrainer.components.loggers.outcome import SPLITS, Outcome, less_is_better
from ftrainer.components.loggers.record import Record, SeriesKey
from ftrainer.components.loggers.rows import read_lines
from ftrainer.config import ResolvedConfig
from ftrainer.config.files import read_source
from ftrainer.config.parse import parse
from ftrainer.engine.rundir import CONFIG, ORIGINS, is_run
from ftrainer.engine.status import NOTES, STATUS, read_status
from registry import ConfigError, Issue, dotted
from registry.spec import thaw

from .metrics import Metrics, read_metrics
from .standing import Standing, standing

METRICS = "metrics.jsonl"
MISSING = "–"
RUN = "config.yaml of a run that `ftrainer train` made"
KINDS: Mapping[str, Any] = MappingProxyType({
    "status": str, "reason": str | None, "digest": str, "step": int | None, "seconds": float | int | None,
    "total_steps": int | None, "started": float | int, "members": list, "environment": dict, "machine": dict,
})  # fmt: skip
"""What stands in a `status.json`, of what kind."""


@attrs.frozen(kw_only=True, slots=False, eq=False)
class Run:
    """One run's directory, read.

    Attributes:
        path: the directory.
        content: of its `status.json`; empty where an earlier version wrote the run.
        standing: how the run is.
        resolved: its configuration.
        metrics: what it logged.
    """

    path: Path
    content: Mapping[str, Any]
    standing: Standing
    resolved: ResolvedConfig
    metrics: Metrics

    @property
    def record(self) -> Record:
        """Every figure that the run logged."""
        return self.metrics.record

    @property
    def outcome(self) -> Outcome | None:
        """What became of its members; None for a plain run."""
        return self.metrics.outcome

    @property
    def name(self) -> str:
        """`run.name`."""
        return str(self.resolved.get("run", "name") or self.path.name)

    @property
    def digest(self) -> str:
        """Of the configuration, as `ftrainer check` prints it."""
        return str(self.content.get("digest") or self.resolved.digest)

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The scalars of the configuration by dotted path."""
        return flatten(thaw(self.resolved.data))

    @cached_property
    def step(self) -> int:
        """The last step that is known to be done."""
        logged = max((steps[-1] for steps, _ in self.record.series.values()), default=0)
        return max(logged, self.standing.step or 0)

    @property
    def total_steps(self) -> int | None:
        """The steps that were planned, where that was written down."""
        planned = self.content.get("total_steps", self.resolved.get("trainer", "max_steps"))
        return planned if isinstance(planned, int) else None

    @property
    def n_members(self) -> int:
        """Runs in one; 1 for a plain run."""
        return len(self.outcome.members) if self.outcome else 1

    @cached_property
    def figures(self) -> list[str]:
        """`split/name` of all that was logged: judgements before training's, losses first."""
        found = dict.fromkeys(f"{key.split}/{key.name}" for key in self.record.series)
        return sorted(found, key=figure_order)

    def headline(self) -> str | None:
        """The figure that the run is judged by: the first that its best split logged."""
        for split in SPLITS:
            for key in self.record.series:
                if key.split == split:
                    return f"{split}/{key.name}"
        return None

    def best(self, figure: str) -> float | None:
        """The best value that a figure ever had, of any member."""
        values = [v for series in self.series(figure).values() for v in series[1] if v - v == 0]
        return (min if less_is_better(figure) else max)(values, default=None)

    def last(self, figure: str) -> float | None:
        """A plain run's last value of a figure."""
        found = list(self.series(figure).values())
        return found[0][1][-1] if len(found) == 1 else None

    def series(self, figure: str) -> dict[SeriesKey, tuple[list[int], list[float]]]:
        """A figure's curves, one for each member."""
        split, _, name = figure.partition("/")
        return {key: found for key, found in self.record.series.items() if (key.split, key.name) == (split, name)}

    @cached_property
    def notes(self) -> list[dict[str, Any]]:
        """What the trainer said while it ran."""
        return list(json_lines(self.path / NOTES))

    @property
    def origins(self) -> str | None:
        """The resolved configuration with each value's file and line; None where an earlier version wrote the run."""
        path = self.path / ORIGINS
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def figure_order(figure: str) -> tuple[int, bool, str]:
    """Where a figure stands among others.

    >>> sorted(["train/loss", "val/accuracy", "val/loss"], key=figure_order)
    ['val/loss', 'val/accuracy', 'train/loss']
    """
    split = figure.partition("/")[0]
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), not figure.endswith("loss"), figure)


def flatten(value: Any, path: tuple[str | int, ...] = ()) -> dict[str, Any]:
    """The scalars of a tree by dotted path, empty containers too.

    >>> flatten({"a": {"b": 1}, "c": [2, {}]})
    {'a.b': 1, 'c[0]': 2, 'c[1]': {}}
    """
    if not isinstance(value, (dict, list)) or not value:
        return {dotted(path): value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {name: leaf for key, child in items for name, leaf in flatten(child, (*path, key)).items()}


def find_runs(directory: Path) -> list[Path]:
    """The directories of runs at or below a directory, by name; shares of a sweep are no runs of their own.

    Raises:
        ConfigError: there is no such directory, or no run in it.
    """
    if not directory.is_dir():
        raise ConfigError([Issue(problem="no such directory", found=repr(str(directory)))])
    left = {path.parent for name in (CONFIG, STATUS) for path in directory.rglob(name)}
    every = sorted(path for path in left if was_run(path))
    found = [path for path in every if not any(parent in path.parents for parent in every)]
    if not found:
        hint = "runs are made by `ftrainer train CONFIG`"
        raise ConfigError([Issue(problem="holds no run", found=repr(str(directory)), expected=f"a {RUN}", hint=hint)])
    return found


def was_run(path: Path) -> bool:
    """Whether a run was here, even if its configuration is damaged or gone."""
    return is_run(path) or "status" in read_status(path)


def gather(paths: Sequence[Path]) -> tuple[list[Run], list[Issue]]:
    """Several runs; a directory that is no run itself stands for all runs below it.

    Returns:
        The runs that can be read, and what is wrong with those below a directory that cannot.

    Raises:
        ConfigError: with an issue for each path that leads to no run, or itself is a damaged one; or no run at all
            can be read.
    """
    runs: dict[Path, Run] = {}
    asked: list[Issue] = []
    below: list[Issue] = []
    for path in paths:
        try:
            places = [path] if was_run(path) else find_runs(path)
        except ConfigError as error:
            asked += error.issues
            continue
        for place in places:
            try:
                runs.setdefault(place.resolve(), read_run(place))
            except ConfigError as error:
                (asked if place == path else below).extend(error.issues)
    if asked or not runs:
        raise ConfigError([*asked, *below])
    return list(runs.values()), below


def read_run(path: Path) -> Run:
    """One run.

    Raises:
        ConfigError: its configuration cannot be read.
    """
    issues: list[Issue] = []
    source = read_source(path / CONFIG)
    resolved = ResolvedConfig(root=parse(source, issues), file=source.name)
    if not is_run(path):
        hint = "it was cut off or written over; `status.json` and what was logged are still there"
        issues.append(Issue(problem="is not what `ftrainer train` wrote", found=repr(str(path / CONFIG)), hint=hint))
    if issues:
        raise ConfigError(issues)
    content = sound(read_status(path))
    metrics = read_metrics(path / METRICS, content.get("members") or ())
    planned = content.get("total_steps", resolved.get("trainer", "max_steps"))
    found = standing(path, content, planned if type(planned) is int else None)
    return Run(path=path, content=content, standing=found, resolved=resolved, metrics=metrics)


def sound(content: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a `status.json` that are of the kind that a run writes.

    >>> sound({"status": "finished", "step": "many", "members": [1]})
    {'status': 'finished'}
    """
    kept = {name: value for name, value in content.items() if isinstance(value, KINDS.get(name, object))}
    if not all(isinstance(member, dict) for member in kept.get("members", ())):
        del kept["members"]
    return kept


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The mappings in a file of JSON lines, those that can be read."""
    for line in read_lines(path):
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            yield content
