"""From the section `replicate:` to the programs of its members, each the program of the configuration with its values.

A member is what the configuration would be with the member's values as overrides, so an interpolation that refers to a
swept path follows it. What such configurations may differ in is decided by their components: traceable numbers of the
learner, and nothing else that the step or the data would see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
from frozendict import frozendict

from ftrainer.config.overrides import split_path
from ftrainer.config.replicate import SEED, Group, Replicate, Values, config_with, not_sweepable, spread
from ftrainer.functional.replicate import Difference, StackError, differences, distinct, swept
from ftrainer.functional.state import Program
from registry.issue import ConfigError, ConfigPath, Issue

Make = Callable[[Values], Program]
"""The program of the configuration with some values laid over it."""
SHARED = ("data", "policy", "trainer", "evaluators")
"""What members have in common besides the structure of the learner."""
STRUCTURAL = "is structural: members of one step may differ in traceable numbers only"


def member_programs(group: Group, settings: Replicate, make: Make) -> tuple[Program, ...]:
    """The programs of a group's members.

    Args:
        group: the members, and what they share.
        settings: the section they come from.
        make: builds a program; it is called once for each combination of values.

    Raises:
        ConfigError: a path does not exist, is not numeric, or is structural; all paths at once.
    """

    def made(values: Values) -> Program:
        return _made(make, {**group.values, **values}, settings)

    base = made({})
    paths = [path for path in settings.over if path not in settings.groups]
    issues = [issue for path in paths for issue in _path_issues(path, spread(settings.over[path]), made)]
    issues += _seed_issues([values[SEED] for values in group.members], base, made)
    if issues:
        raise ConfigError(issues)
    learners: dict[Any, Any] = {}
    for row in map(_without_seed, group.members):
        learners[row] = learners[row] if row in learners else made(row).learner
    try:
        swept(list(learners.values()))
    except StackError as error:
        raise ConfigError([Issue(path=("replicate", "over"), problem=str(error))]) from error
    return tuple(_member(base, learners[_without_seed(values)], values) for values in group.members)


def _without_seed(values: Values) -> frozendict[str, Any]:
    return frozendict({path: value for path, value in values.items() if path != SEED})


def _member(base: Program, learner: Any, values: Values) -> Program:
    run = attrs.evolve(base.run, seed=values[SEED])
    return base.but(learner=learner, run=run, values=frozendict(values), config=config_with(base.config, values))


def _path_issues(path: str, values: Sequence[Any], made: Make) -> Iterable[Issue]:
    """What keeps one path from being swept: tried alone, so that blame falls on the right one."""
    two = [values[0], *[value for value in values if value != values[0]][:1]]
    try:
        found = all_differences([made({path: value}) for value in two])
    except ConfigError as error:
        return error.issues
    structural = [difference for difference in found if not difference.traceable]
    if structural:
        return not_sweepable(path, STRUCTURAL, found=_told(structural[0])).issues
    return not_sweepable(path, "changes nothing in the step").issues if len(two) > 1 and not found else ()


def _seed_issues(seeds: Sequence[int], base: Program, made: Make) -> Iterable[Issue]:
    """A configuration may refer to `run.seed`, but not so that its members differ in more than their draws."""
    others = [seed for seed in seeds if seed != base.run.seed]
    found = all_differences([base, made({SEED: others[0]})]) if others and len(seeds) > 1 else []
    problem = "seeds change more than draws: the configuration refers to run.seed"
    return [Issue(path=("replicate", "seeds"), problem=problem, found=_told(found[0]))] if found else []


def all_differences(programs: Sequence[Program]) -> list[Difference]:
    """Where programs differ in what enters the step, the data or the judgement; outside the learner none may."""
    found = [
        difference._replace(traceable=False)
        for name in SHARED
        for difference in differences([getattr(program, name) for program in programs], (name,))
    ]
    return found + list(differences([program.learner for program in programs]))


def _told(difference: Difference) -> str:
    values = " and ".join(map(repr, distinct(difference.values)))
    return f"{'.'.join(difference.path)}: {values}" if len(values) < 80 else ".".join(difference.path)


def _made(make: Make, values: Values, settings: Replicate) -> Program:
    """The program with these values; what is wrong with one of them is told at its place in `replicate.over`."""
    try:
        return make(values)
    except ConfigError as error:
        raise ConfigError(_relocated(issue, values, settings) for issue in error.issues) from error


def _relocated(issue: Issue, values: Values, settings: Replicate) -> Issue:
    texts = tuple(str(part) for part in issue.path)
    for path, value in values.items():
        parts = split_path(path)[0]
        n = min(len(parts), len(texts))
        if n and texts[:n] == parts[:n]:
            inside = issue.at == "value" and len(texts) >= len(parts)
            return _at_value(issue, path, value, settings) if inside else _at_path(issue, path)
    return issue


def _at_path(issue: Issue, path: str) -> Issue:
    """An issue about a path that is not there, with the nearest ones that are."""
    stem = path.rpartition(".")[0]
    near = tuple(f"{stem}.{name}" if stem else name for name in issue.nearest)
    return attrs.evolve(issue, path=("replicate", "over", path), at="key", nearest=near, where=None)


def _at_value(issue: Issue, path: str, value: Any, settings: Replicate) -> Issue:
    given = settings.over[path]
    place: ConfigPath = tuple(given) if isinstance(given, Mapping) else (spread(given).index(value),)
    return attrs.evolve(issue, path=("replicate", "over", path, *place), where=None)
