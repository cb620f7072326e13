"""Text to `ResolvedConfig`: parse → defaults → merge → overrides → templates → interpolation, in this order."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import attrs

from registry.issue import ConfigError, Issue

from .files import layers, refuse_directive
from .interpolate import interpolate
from .merge import directive_issues, merge
from .node import Node, from_python, kind, refuse_explosion
from .overrides import apply_overrides, read_overrides
from .resolved import ResolvedConfig
from .sections import DEFAULTS
from .templates import expand_templates


def resolve_config(
    source: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    environ: Mapping[str, str] | None = None,
) -> ResolvedConfig:
    """Read a configuration through every stage.

    >>> resolved = resolve_config({"run": {"name": "a", "seed": 0}, "params": {"s": "${run.seed}"}}, ["run.seed=7"])
    >>> resolved.data["params"]["s"], resolved.data["run"]["out_dir"]
    (7, 'runs/a')

    Args:
        source: a file, or the data itself (whose `defaults:` are relative to the working directory).
        overrides: `["key.path=value"]`, or `{"key.path": value}`.
        environ: what `${env:…}` reads; the process's environment if absent.

    Raises:
        ConfigError: with everything that is wrong.
    """
    resolved, issues = resolve(source, overrides, environ=environ)
    if issues:
        raise ConfigError(issues)
    return resolved


def resolve(
    source: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    environ: Mapping[str, str] | None = None,
) -> tuple[ResolvedConfig, tuple[Issue, ...]]:
    """As `resolve_config`, but with the issues that leave something to check returned beside the configuration.

    Raises:
        ConfigError: what is wrong leaves nothing to check: no YAML, a missing file, a bad `_merge_` or template.
    """
    issues: list[Issue] = []
    given = read_overrides(overrides, issues)
    merged = apply_overrides(_merged(_layers(source, issues), issues), given, issues)
    resolved, found = _finished(merged, None if isinstance(source, Mapping) else str(source), environ)
    return resolved, (*issues, *found)


def resolve_again(
    resolved: ResolvedConfig, overrides: Mapping[str, Any], *, environ: Mapping[str, str] | None = None
) -> ResolvedConfig:
    """A configuration as it would be with further overrides; whatever refers to them follows.

    >>> resolved = resolve_config({"params": {"a": 1, "b": "${params.a}"}})
    >>> resolve_again(resolved, {"params.a": 2}).data["params"]["b"]
    2

    Raises:
        ConfigError: with everything that is wrong.
    """
    issues: list[Issue] = []
    merged = apply_overrides(resolved.merged, read_overrides(overrides, issues), issues)
    changed, found = _finished(merged, resolved.file, environ)
    if issues := [*issues, *found]:
        raise ConfigError(issues)
    return changed


def _finished(
    merged: Node, file: str | None, environ: Mapping[str, str] | None
) -> tuple[ResolvedConfig, tuple[Issue, ...]]:
    """Templates and interpolation over a tree that is merged and overridden."""
    root = _with_defaults(expand_templates(merged))
    refuse_explosion(root)
    found: list[Issue] = []
    root = interpolate(root, os.environ if environ is None else environ, found)
    resolved = ResolvedConfig(root=root, file=file, merged=merged)
    return resolved, tuple(_name_first(resolved, found))


def _merged(stack: list[Node], before: list[Issue]) -> Node:
    issues: list[Issue] = []
    root = reduce(lambda base, over: merge(base, over, (), issues), stack)
    if issues:
        raise ConfigError([*before, *issues])
    return root


def _name_first(resolved: ResolvedConfig, issues: list[Issue]) -> list[Issue]:
    """The issues of interpolation; where `run.name` is missing that is the one to name, and not all who refer to it."""
    nowhere = (
        "${run.name} leads nowhere: run has no 'name'",
        "${run.out_dir} leads nowhere",
    )  # which has the name in it
    others = [issue for issue in issues if not issue.problem.startswith(nowhere)]
    if len(others) == len(issues):
        return issues
    return [resolved.locate(Issue(path=("run", "name"), problem="is required and missing", at="key")), *others]


def _layers(source: str | Path | Mapping[str, Any], issues: list[Issue]) -> list[Node]:
    if not isinstance(source, Mapping):
        return layers(Path(source), issues)
    root = from_python(source)
    refuse_directive(root)
    below: list[Node] = []
    defaults = root.value.pop("defaults", None)
    for path in _paths(defaults):
        below += layers(path, issues)
    wrong = tuple(directive_issues(root))
    if wrong:
        raise ConfigError([*issues, *wrong])
    return [*below, root]


def _paths(defaults: Node | None) -> list[Path]:
    if defaults is None or defaults.value is None:
        return []
    items = defaults.value if isinstance(defaults.value, list) else [defaults]
    wrong = [item for item in items if not isinstance(item.value, str)]
    if wrong:
        raise ConfigError(
            [Issue(path=("defaults",), problem="defaults is a path or a list of paths", found=kind(wrong[0].value))]
        )
    return [Path(item.value) for item in items]


def _with_defaults(root: Node) -> Node:
    """The tree with what a configuration may leave out of `run:`, so that interpolations find it."""
    run = root.value.get("run")
    if run is None or not isinstance(run.value, dict) or "name" not in run.value:
        return root
    absent = {key: value for key, value in DEFAULTS.items() if key not in run.value}
    added = {key: Node(value=value, how="default", place=run.key) for key, value in absent.items()}
    return attrs.evolve(root, value={**root.value, "run": attrs.evolve(run, value={**run.value, **added})})
