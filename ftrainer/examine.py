"""Everything that is wrong with a configuration, in one go and without training, data or output."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from ftrainer.builtins import builtin_registry
from ftrainer.config import (
    ResolvedConfig,
    post_model_issues,
    preflight_issues,
    resolve,
    settings_of,
)
from ftrainer.model import build_model
from ftrainer.stages import SECTIONS, build_registry, instantiate_value, part, replicated, validate_specs
from registry import ConfigError, Issue, Registry, instantiate

FORMS = frozenset({"sequential", "graph", "_type_", "_target_"})
UNKNOWN_KEY = "unknown registry key"
MAYBE_LOST = "a plugin that may not be imported may register it"


def examine(
    source: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | Sequence[str] = (),
    registry: Registry | None = None,
) -> tuple[ResolvedConfig, Registry]:
    """Resolve a configuration and check all of it: structure, keys, arguments, and what components say of themselves.

    Returns:
        The configuration and the registry with its plugins.

    Raises:
        ConfigError: with every issue of every stage, each with its place.
    """
    resolved, found = resolve(source, overrides)
    issues = list(found)
    _add(issues, preflight_issues(resolved))
    registry = _registry(resolved, builtin_registry() if registry is None else registry, issues)
    _add(issues, _raised(lambda: validate_specs(resolved, registry)))
    _add(issues, _model_issues(resolved, registry))
    _add(issues, _component_issues(resolved, registry, {issue.path[0] for issue in issues if issue.path}))
    if issues:
        raise resolved.located(ConfigError(issues))
    return resolved, registry


def _registry(resolved: ResolvedConfig, known: Registry, issues: list[Issue]) -> Registry:
    """The registry with its plugins; without them where they cannot be loaded."""
    try:
        return build_registry(resolved, known)
    except ConfigError as error:
        _add(issues, error.issues)
        return known.under(settings_of(resolved.data))


def _model_issues(resolved: ResolvedConfig, registry: Registry) -> Sequence[Issue]:
    section = resolved.data.get("model")
    if section is None or (isinstance(section, Mapping) and len(FORMS & section.keys()) != 1):
        return ()  # preflight says so
    try:
        model = build_model(registry, section)
    except ConfigError as error:
        return error.issues
    return post_model_issues(resolved, registry, model.inputs)


def _component_issues(resolved: ResolvedConfig, registry: Registry, broken: Collection[str | int]) -> Sequence[Issue]:
    """What components say about their own fields, those in broken sections left out; the learner needs all others."""
    names = [name for name in SECTIONS if name != "learner" and name not in broken]
    issues = [i for name in names for i in _raised(partial(instantiate, registry, part(resolved, name), (name,)))]
    if issues or broken:
        return issues
    model = build_model(registry, resolved.data["model"])
    return _raised(lambda: replicated(instantiate_value(resolved, registry, model), registry))


def _raised(stage: Callable[[], Any]) -> Sequence[Issue]:
    try:
        stage()
    except ConfigError as error:
        return error.issues
    return ()


def _add(issues: list[Issue], more: Iterable[Issue]) -> None:
    """Add what later stages found, once for each path: what names a better word wins."""
    known = {issue.path: index for index, issue in enumerate(issues)}
    lost_plugins = any(path[:1] == ("imports",) for path in known)
    refused_plugins = any(issue.path[:1] == ("imports",) and "settings." in issue.problem for issue in issues)
    for issue in more:
        from_plugin = issue.problem == UNKNOWN_KEY and (issue.hint or not issue.nearest)
        above = {(*issue.path[:depth], "_type_") for depth in range(len(issue.path))} - {issue.path}
        if (lost_plugins and from_plugin) or above & known.keys():
            continue  # a consequence of the missing plugin, or of a `_type_` that is not the one that was meant
        if refused_plugins and issue.problem == UNKNOWN_KEY:
            issue = attrs.evolve(issue, nearest=(), hint=MAYBE_LOST)
        if issue.path not in known:
            known[issue.path] = len(issues)
            issues.append(issue)
        elif issue.nearest and not issues[known[issue.path]].nearest:
            issues[known[issue.path]] = issue
