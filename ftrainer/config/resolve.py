"""Text to `ResolvedConfig`: parse → defaults → merge → overrides → templates → interpolation, in this order."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import attrs

from registry.issue import ConfigError, Issue

from .files import layers
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
        ConfigError: with every issue of the first stage that found any.
    """
    stack = _layers(source)
    given = read_overrides(overrides)
    issues: list[Issue] = []
    root = reduce(lambda base, over: merge(base, over, (), issues), stack)
    if issues:
        raise ConfigError(issues)
    root = apply_overrides(root, given)
    root = _with_defaults(root)
    root = expand_templates(root)
    refuse_explosion(root)
    root = interpolate(root, os.environ if environ is None else environ)
    return ResolvedConfig(root=root, file=None if isinstance(source, Mapping) else str(source))


def _layers(source: str | Path | Mapping[str, Any]) -> list[Node]:
    if not isinstance(source, Mapping):
        return layers(Path(source))
    root = from_python(source)
    below: list[Node] = []
    defaults = root.value.pop("defaults", None)
    for path in _paths(defaults):
        below += layers(path)
    issues = tuple(directive_issues(root))
    if issues:
        raise ConfigError(issues)
    return [*below, root]


def _paths(defaults: Node | None) -> list[Path]:
    if defaults is None or defaults.value is None:
        return []
    items = defaults.value if isinstance(defaults.value, list) else [defaults]
    wrong = [item for item in items if not isinstance(item.value, str)]
    if wrong:
        raise ConfigError(
            [Issue(path=("defaults",), problem="defaults is a list of paths", found=kind(wrong[0].value))]
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
