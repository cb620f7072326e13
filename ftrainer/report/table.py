"""Runs as a table on the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ftrainer.components.loggers.rows import number_text
from ftrainer.config.scalars import read_plain
from registry import ConfigError, Issue, nearest

from .runs import MISSING, Run

STYLES = MappingProxyType({"running": "cyan", "finished": "green", "stopped": "yellow", "failed": "bold red"})
COLUMNS: Mapping[str, Callable[[Run], Any]] = MappingProxyType(
    {
        "name": lambda run: run.name,
        "path": lambda run: str(run.path),
        "status": lambda run: run.standing.status,
        "steps": lambda run: run.step,
        "best": lambda run: run.best(run.headline() or ""),
        "duration": lambda run: seconds_of(run),
        "started": lambda run: run.content.get("started"),
        "digest": lambda run: run.digest,
        "members": lambda run: run.n_members,
    }
)
"""What a run can be sorted and chosen by, besides its figures and the paths of its configuration."""


def value_of(run: Run, key: str) -> Any:
    """A run's value of a column, a figure (its best) or a path of its configuration; None where it has none."""
    if key in COLUMNS:
        return COLUMNS[key](run)
    if key in run.figures:
        return run.best(key)
    return run.flat.get(key)


def sort_runs(runs: Sequence[Run], key: str, reverse: bool = False) -> list[Run]:
    """Runs by a column, figure or path, ascending, those without one last.

    Raises:
        ConfigError: no run has such a thing.
    """
    check_key(runs, key)
    values = {id(run): value_of(run, key) for run in runs}
    there = [run for run in runs if not _absent(values[id(run)])]
    numbers = all(isinstance(values[id(run)], (int, float)) for run in there)
    ranked = sorted(there, key=lambda run: values[id(run)] if numbers else str(values[id(run)]), reverse=reverse)
    return [*ranked, *(run for run in runs if _absent(values[id(run)]))]


def filter_runs(runs: Sequence[Run], conditions: Sequence[str]) -> list[Run]:
    """The runs that meet every condition `key=value`; a text may have the wildcards of file names.

    Raises:
        ConfigError: a condition is none, or asks for what no run has.
    """
    kept = list(runs)
    for condition in conditions:
        key, sign, wanted = condition.partition("=")
        if not sign:
            raise ConfigError([Issue(problem="is no condition", found=repr(condition), expected="key=value")])
        check_key(runs, key)
        kept = [run for run in kept if matches(value_of(run, key), wanted)]
    return kept


def check_key(runs: Sequence[Run], key: str) -> None:
    """Refuse a key that means nothing to any of the runs.

    Raises:
        ConfigError: with the nearest keys.
    """
    known = dict.fromkeys([*COLUMNS, *(f for run in runs for f in run.figures), *(p for r in runs for p in r.flat)])
    if key not in known:
        expected = f"{', '.join(COLUMNS)}, a metric, or a path of the configuration"
        found = repr(key)
        raise ConfigError([Issue(problem="unknown key", found=found, expected=expected, nearest=nearest(key, known))])


def matches(value: Any, wanted: str) -> bool:
    """Whether a value is the one that was written.

    >>> matches(0.001, "1e-3"), matches("finished", "fin*"), matches(True, "true"), matches("a", "b")
    (True, True, True, False)
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return value == float(wanted)
        except ValueError:
            return False
    if isinstance(value, str):
        return fnmatchcase(value, wanted)
    try:
        return bool(value == read_plain(wanted))
    except ValueError:
        return False


def runs_table(runs: Sequence[Run], extra: Sequence[str] = ()) -> Table:
    """A row for each run.

    Args:
        runs: in the order to show.
        extra: figures or paths to show besides, since somebody asked about them.
    """
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("status", no_wrap=True)
    for heading in ("steps", "best", "duration"):
        table.add_column(heading, justify="right")
    table.add_column("digest", no_wrap=True)
    shown = [key for key in dict.fromkeys(extra) if key not in COLUMNS]
    several = any(run.n_members > 1 for run in runs)
    for heading in [*(["members"] if several else []), *shown]:
        table.add_column(escape(heading), justify="right")
    for run in runs:
        members = [str(run.n_members)] if several else []
        table.add_row(escape(str(run.path)), status_text(run), steps_text(run), escape(best_text(run)),
                      duration_text(seconds_of(run)), run.digest[:12], *members,
                      *(escape(cell_text(value_of(run, key))) for key in shown))  # fmt: skip
    return table


def status_text(run: Run) -> Text:
    """The status in its colour."""
    return Text(run.standing.status, style=STYLES[run.standing.status])


def steps_text(run: Run) -> str:
    """How far a run came, of what was planned."""
    return str(run.step) if run.total_steps is None else f"{run.step}/{run.total_steps}"


def best_text(run: Run) -> str:
    """The best value of the figure that the run is judged by; of a replicated run also whose it is."""
    figure = run.headline()
    value = None if figure is None else run.best(figure)
    return MISSING if value is None else f"{figure} {number_text(value)}"


def seconds_of(run: Run) -> float | None:
    """How long a run trained, attempts before a resume included; None where nobody wrote that down."""
    return run.standing.seconds if run.standing.seconds is not None else run.metrics.seconds


def duration_text(seconds: float | None) -> str:
    """A duration as a person reads it.

    >>> duration_text(3725.4), duration_text(4.25), duration_text(None)
    ('1:02:05', '4.2 s', '–')
    """
    if seconds is None:
        return MISSING
    return f"{seconds:.1f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def cell_text(value: Any) -> str:
    """A value of any kind in a cell."""
    if _absent(value):
        return MISSING
    return number_text(value) if isinstance(value, float) else str(value)


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
