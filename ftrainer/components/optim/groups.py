"""Parameters by name: what a pattern selects, and hyperparameters of one's own for it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from ftrainer.functional import patterns
from ftrainer.functional.state import Tree
from registry.issue import ConfigError, Issue, invalid, nearest
from registry.spec import traceable

Leaf = tuple[str, str]
"""A parameter's role and its dotted name."""

REST = "rest"


def select(tree: Tree, chosen: Iterable[Leaf]) -> Tree:
    """The part of `{role: {name: leaf}}` that is chosen; roles without any are left out."""
    keep = set(chosen)
    parts = {role: {name: leaf for name, leaf in by.items() if (role, name) in keep} for role, by in tree.items()}
    return {role: part for role, part in parts.items() if part}


def merge(like: Tree, parts: Iterable[Tree], default: Tree | None = None) -> Tree:
    """One tree with the leaves of disjoint parts, in the order of `like`; the others from `default`."""
    found = {(role, name): leaf for part in parts for role, by in part.items() for name, leaf in by.items()}
    return {
        role: {name: found[role, name] if (role, name) in found else (default or {})[role][name] for name in by}
        for role, by in like.items()
    }


def matching(pattern: str, params: Tree, *field: str | int) -> list[Leaf]:
    """The parameters whose dotted name, alone or behind `role.`, fits a pattern; `field` is its place, for the error.

    Raises:
        ConfigError: there is none; it shows the nearest names.
    """
    leaves = [(role, name) for role, by in params.items() for name in by]
    names: dict[str, list[Leaf]] = {}
    for role, name in leaves:
        names.setdefault(name, []).append((role, name))
    for role, name in leaves:
        names.setdefault(f"{role}.{name}", []).append((role, name))
    return [leaf for name in patterns.match(pattern, names, *field) for leaf in names[name]]


def assign(chosen: Iterable[Iterable[Leaf]], params: Tree) -> tuple[list[list[Leaf]], list[Leaf]]:
    """What each of several selections gets when the first one wins, and what none of them wants."""
    left = [(role, name) for role, by in params.items() for name in by]
    taken = []
    for wanted in map(set, chosen):
        taken.append([leaf for leaf in left if leaf in wanted])
        left = [leaf for leaf in left if leaf not in wanted]
    return taken, left


def groups_field() -> Any:
    """The field `groups` of an optimizer: `({"match": "*.bias", "weight_decay": 0}, …)`, first match wins.

    Each entry names parameters by a pattern, and the hyperparameters that differ for them.
    """
    return traceable(default=(), validator=_check_groups)


def _check_groups(spec: Any, attribute: attrs.Attribute[Any], groups: Any) -> None:
    if groups == ():
        return
    _check_names(spec, groups)
    for i, group in enumerate(groups):
        try:
            member(spec, group)  # validators run when all fields are there
        except ConfigError as error:
            raise ConfigError(issue.under(("groups", i)) for issue in error.issues) from None


def _check_names(spec: Any, groups: Any) -> None:
    if not isinstance(groups, tuple):
        raise invalid("not a list", "groups", found=repr(groups), expected="a list of mappings with `match`")
    issues: list[Issue] = []
    for i, group in enumerate(groups):
        if not isinstance(group, Mapping) or not isinstance(group.get("match"), str):
            raise invalid("a group without a pattern", "groups", i, expected="a mapping with `match: <pattern>`")
        valid = [f.name for f in attrs.fields(type(spec)) if f.name != "groups"]
        for name in group.keys() - {"match", *valid}:
            error = invalid("unknown hyperparameter", "groups", i, name, nearest=nearest(name, valid), at="key")
            issues.extend(error.issues)
    if issues:
        raise ConfigError(issues)


def member(spec: Any, group: Mapping[str, Any]) -> Any:
    """The optimizer as one group sees it."""
    return attrs.evolve(spec, groups=(), **{name: value for name, value in group.items() if name != "match"})


def _members(spec: Any, params: Tree) -> list[tuple[str, Any, list[Leaf]]]:
    wanted = [matching(group["match"], params, "groups", i, "match") for i, group in enumerate(spec.groups)]
    taken, left = assign(wanted, params)
    parts = [(str(i), member(spec, group), taken[i]) for i, group in enumerate(spec.groups)]
    return [part for part in (*parts, (REST, attrs.evolve(spec, groups=()), left)) if part[2]]


def init_by_group(init: Callable[[Any, Tree], Tree]) -> Callable[[Any, Tree], Tree]:
    """Let an optimizer's `init` see one group of parameters at a time, with that group's hyperparameters."""

    @functools.wraps(init)
    def wrapper(self: Any, params: Tree) -> Tree:
        if not self.groups:
            return init(self, params)
        return {label: init(spec, select(params, leaves)) for label, spec, leaves in _members(self, params)}

    return wrapper


def update_by_group(update: Callable[..., tuple[Tree, Tree]]) -> Callable[..., tuple[Tree, Tree]]:
    """The same for `update`; the graph holds no trace of the groups but their different numbers."""

    @functools.wraps(update)
    def wrapper(self: Any, grads: Tree, opt_state: Tree, params: Tree, ctx: Any) -> tuple[Tree, Tree]:
        if not self.groups:
            return update(self, grads, opt_state, params, ctx)
        results = {
            label: update(spec, select(grads, leaves), opt_state[label], select(params, leaves), ctx)
            for label, spec, leaves in _members(self, params)
        }
        updates = merge(params, [part for part, _ in results.values()])
        return updates, {label: state for label, (_, state) in results.items()}

    return wrapper


def eval_by_group(evaluated: Callable[[Any, Tree, Tree], Tree]) -> Callable[[Any, Tree, Tree], Tree]:
    """The same for `eval_params`."""

    @functools.wraps(evaluated)
    def wrapper(self: Any, opt_state: Tree, params: Tree) -> Tree:
        if not self.groups:
            return evaluated(self, opt_state, params)
        members = _members(self, params)
        return merge(params, [evaluated(spec, opt_state[name], select(params, kept)) for name, spec, kept in members])

    return wrapper
