"""The parts of the page that are text and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ftrainer.components.loggers.estimates import LEVEL, Estimate, cells, estimate
from ftrainer.components.loggers.outcome import less_is_better
from ftrainer.components.loggers.rows import number_text

from .groups import Group, differing, rows_of_seeds, shared
from .markup import Markup, html, joined, section, table, tag
from .runs import MISSING, Run
from .table import best_text, cell_text, duration_text, seconds_of, steps_text

_ORIGIN = re.compile(r"^(.*?)(  # (?:override|[^\"'#]+:\d+))$")
MOST_NOTES = 200
"""Messages of one run that the page shows."""


def overview(runs: Sequence[Run]) -> Markup:
    """A row for each run."""
    head = ("run", "status", "steps", "best", "duration", "members", "started", "digest", "why it ended")
    rows = ([run_name(run), pill(run), steps_text(run), best_text(run), duration_text(seconds_of(run)), run.n_members,
             started_text(run), run.digest[:12], run.standing.reason or MISSING] for run in runs)  # fmt: skip
    torn = [
        f"{run.path}: {run.metrics.damaged} lines of its metrics cannot be read" for run in runs if run.metrics.damaged
    ]
    return section("runs", "Runs", table(head, rows, text=(8,)), *(tag("p", line, class_="soft") for line in torn))


def finals(groups: Sequence[Group], figures: Sequence[str]) -> Markup:
    """Each figure's last and best value for each group."""
    head = ("figure", *(group.label for group in groups))
    rows = ([figure, *(final_cell(group, figure) for group in groups)] for figure in figures)
    said = "Last value, and below it the best one with its step. Where a configuration has several seeds: their mean."
    return section("final", "Final values", tag("p", said, class_="soft"), table(head, rows))


def final_cell(group: Group, figure: str) -> Markup:
    """Last and best value."""
    traces = group.traces(figure)
    if not traces:
        return html(MISSING)
    last = sum(float(trace.values[-1]) for trace in traces) / len(traces)
    best, place = (np.min, np.argmin) if less_is_better(figure) else (np.max, np.argmax)
    winner = traces[int(place([best(trace.values) for trace in traces]))]
    at = int(place(winner.values))
    said = f"{number_text(winner.values[at])} @ {winner.steps[at]:,}"
    return joined((tag("b", number_text(last)), tag("small", said)), "<br>")


def estimates(groups: Sequence[Group], figures: Sequence[str]) -> Markup:
    """What seeds say about each figure; nothing where no configuration has several."""
    replicated = [group for group in groups if group.n > 1]
    if not replicated:
        return Markup()
    head = ("figure", "configuration", "seeds", "mean ± sd", "IQM", f"{LEVEL:.0%} interval of the IQM", "best seed")
    rows = [
        [figure, group.label, found.n, *cells(found), best_seed(group, figure)]
        for figure in figures for group in replicated for found in [seeds_say(group, figure)] if found.n
    ]  # fmt: skip
    said = (
        "Of each seed's last value: mean with the standard deviation of a sample, and the interquartile mean with its "
        "percentile bootstrap interval, as rliable defines them (Agarwal et al. 2021)."
    )
    return section("estimates", "Interval estimates", tag("p", said, class_="soft"), table(head, rows))


def seeds_say(group: Group, figure: str) -> Estimate:
    """The estimate over a group's last values."""
    return estimate([group.finals(figure)])


def best_seed(group: Group, figure: str) -> str:
    """The seed whose last value is the best, where every seed has one."""
    values = group.finals(figure)
    if len(values) != group.n:
        return MISSING
    best = (min if less_is_better(figure) else max)(range(len(values)), key=values.__getitem__)
    seed = rows_of_seeds(group)[best].get("run.seed")
    return f"{number_text(values[best])} [seed {seed}]"


def differences(runs: Sequence[Run]) -> Markup:
    """What the configurations of the runs have different; nothing for one run."""
    if len(runs) < 2:
        return Markup()
    tables = [{**shared(run), "run.seed": run.flat.get("run.seed")} for run in runs]
    paths = differing(tables)
    head = ("path", *(run_name(run) for run in runs))
    rows = ([path, *(cell_text(flat[path]) if path in flat else MISSING for flat in tables)] for path in paths)
    text = tuple(range(1, len(head)))
    inner = table(head, rows, text) if paths else tag("p", "The configurations are the same but for their names.")
    return section("differences", "Differences between the runs", inner)


def machines(runs: Sequence[Run]) -> Markup:
    """Where and with what each run was computed; what is the same for all is said once."""
    facts = [facts_of(run) for run in runs]
    names = list(dict.fromkeys(name for fact in facts for name in fact))
    if not names:
        return section(
            "machine", "Machine and versions", tag("p", "The runs do not say: an earlier version wrote them.")
        )
    apart = differing(facts) if len(facts) > 1 else []
    same = [(name, cell_text(facts[0].get(name))) for name in names if name not in apart]
    inner: list[Markup] = [table(("all runs" if len(runs) > 1 else "", ""), same, text=(1,))] if same else []
    if apart:
        rows = (
            [run_name(run), *(cell_text(fact.get(name)) for name in apart)]
            for run, fact in zip(runs, facts, strict=True)
        )
        inner.append(table(("run", *apart), rows))
    return section("machine", "Machine and versions", *inner)


def facts_of(run: Run) -> dict[str, Any]:
    """A run's versions and machine, flat."""
    return {**(run.content.get("environment") or {}), **(run.content.get("machine") or {})}


def notes(runs: Sequence[Run]) -> Markup:
    """Bad steps, retraces, and whatever else the trainer said, run by run."""
    head = ("run", "bad steps", "retraces", "other warnings")
    counted = {run.path: counts(run) for run in runs}
    rows = ([run_name(run), *counted[run.path]] for run in runs)
    said = "A bad step's loss or gradients were not finite: it was skipped, and the state stayed as it was."
    spoken = [run for run in runs if run.notes]
    inner = (tag("p", said, class_="soft"), table(head, rows, text=(1,)))
    return section("notes", "Bad steps, retraces, messages", *inner, *(messages(run) for run in spoken))


def counts(run: Run) -> list[str]:
    """How many bad steps, and which; retraces; other warnings."""
    bad = {(note.get("step"), note.get("member")): None for note in run.notes if note.get("kind") == "bad step"}
    which = ", ".join(f"{step}" if who is None else f"{step} [{who}]" for step, who in list(bad)[:20])
    retraces = sum(note.get("kind") == "retrace" for note in run.notes)
    others = sum(note.get("level") in ("warning", "error") and "kind" not in note for note in run.notes)
    listed = f"{len(bad)}: {which}{' …' if len(bad) > 20 else ''}" if bad else "0"
    return [listed, str(retraces), str(others)]


def messages(run: Run) -> Markup:
    """What the trainer said during a run, folded away."""
    shown = run.notes[:MOST_NOTES]
    lines = [f"{clock(note.get('time'))}  {note.get('level', ''):<7}  {note.get('message', '')}" for note in shown]
    more = [f"… and {len(run.notes) - len(shown)} more"] if len(run.notes) > len(shown) else []
    head = tag("summary", f"{run_name(run)}: {len(run.notes)} messages")
    return tag("details", head, tag("pre", "\n".join([*lines, *more])))


def configurations(runs: Sequence[Run]) -> Markup:
    """Each run's resolved configuration with the origin of every value, folded away."""
    return section("configuration", "Resolved configuration", *(configuration(run, len(runs) == 1) for run in runs))


def configuration(run: Run, is_open: bool) -> Markup:
    """One of them."""
    text = run.origins
    said = "" if text is not None else " (where its values came from was not recorded)"
    lines = (text if text is not None else run.resolved.to_yaml()).splitlines()
    body = tag("pre", joined(map(config_line, lines), "\n"))
    attributes = {"open": ""} if is_open else {}
    return tag("details", tag("summary", f"{run_name(run)} · {run.digest[:12]}{said}"), body, **attributes)


def config_line(line: str) -> Markup:
    """A line of YAML, the origin that ends it set apart.

    >>> config_line("lr: 0.1  # a.yaml:3"), config_line('text: "a  # b"')
    ('lr: 0.1<i>  # a.yaml:3</i>', 'text: &quot;a  # b&quot;')
    """
    found = _ORIGIN.match(line)
    return joined((found[1], tag("i", found[2]))) if found else html(line)


def run_name(run: Run) -> str:
    """A run's name, with its directory's where that is another one."""
    return run.name if run.path.name in (run.name, "") else f"{run.name} ({run.path.name})"


def pill(run: Run) -> Markup:
    """The status on its colour."""
    return tag("span", run.standing.status, class_=f"pill {run.standing.status}")


def started_text(run: Run) -> str:
    """When a run began, in UTC."""
    started = run.content.get("started")
    return f"{utc(started):%Y-%m-%d %H:%M}" if isinstance(started, (int, float)) else MISSING


def clock(seconds: Any) -> str:
    """The time of a message, in UTC."""
    return f"{utc(seconds):%H:%M:%S}" if isinstance(seconds, (int, float)) else "--:--:--"


def utc(seconds: float) -> datetime:
    """Seconds since the epoch as a date."""
    return datetime.fromtimestamp(seconds, UTC)


def navigation(names: Sequence[tuple[str, str]]) -> Iterator[Markup]:
    """Links to the parts of the page."""
    return (tag("a", title, href=f"#{anchor}") for anchor, title in names)
