"""The end of resolution: data for the program, places for errors, and the way of every value."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any, TypeVar

import attrs
from frozendict import frozendict

from registry.instantiate import instantiate
from registry.issue import ConfigError, ConfigPath, Issue
from registry.registry import Registry
from registry.spec import freeze, thaw

from .dump import to_yaml
from .explain import explain
from .node import Node, Place, descend, plain, public
from .sections import SECTIONS

C = TypeVar("C")
T = TypeVar("T", str, str | None)

HIDDEN = "a value from the environment (not shown)"


@attrs.frozen(eq=False, slots=False)
class ResolvedConfig:
    """A configuration with nothing left to look up.

    Attributes:
        root: the tree, with the origin of every value.
        file: the file that was asked for; None for data made in Python.
        merged: the tree before templates and interpolation, overrides included.
    """

    root: Node
    file: str | None = None
    merged: Node = attrs.field(default=attrs.Factory(lambda self: self.root, takes_self=True), repr=False)

    @cached_property
    def data(self) -> frozendict[str, Any]:
        """The bare data: frozen mappings, tuples, scalars."""
        return freeze(plain(self.root))

    @cached_property
    def public(self) -> frozendict[str, Any]:
        """The data as it may be printed and stored: `${env:…}` expressions in place of the environment's values."""
        return freeze(public(self.root))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the data as JSON with sorted keys: the same for every way of writing the same configuration."""
        text = json.dumps(thaw(self.data), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """Values of the environment that the configuration holds, longest first."""
        return tuple(sorted(_secrets(self.root), key=lambda text: (-len(text), text)))

    def get(self, *path: str | int) -> Any:
        """The data at a path; None where nothing stands."""
        value: Any = self.data
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def section(self, name: str, cls: type[C]) -> C:
        """A top-level section without `_type_` as the component that describes it.

        Raises:
            ConfigError: with every issue of the section, each with its place.
        """
        try:
            return instantiate(Registry(), self.data.get(name) or {}, (name,), expected=cls)
        except ConfigError as error:
            raise self.located(error) from error.__cause__

    def to_yaml(self, origin: bool = False) -> str:
        """The resolved configuration as YAML, values from the environment as their expressions.

        Args:
            origin: add to each value a comment with the file and line that it came from.
        """
        return to_yaml(self.root, origin=origin)

    def explain(self, path: str) -> str:
        """The chain of files, templates, interpolations and overrides that made a value.

        Raises:
            ConfigError: nothing stands at the path.
        """
        return explain(self.root, path)

    def located(self, error: ConfigError) -> ConfigError:
        """The same issues with the place of each in the text, and without the environment's values."""
        return ConfigError(self.locate(issue) for issue in error.issues)

    def locate(self, issue: Issue) -> Issue:
        """One issue with its place: that of the node, or of the nearest one above it that exists.

        What is about no section, as a leaf of a checkpoint, has none.
        """
        node, rest = find(self.root, issue.path)
        if issue.where is None and (node is not self.root or (issue.path and issue.path[0] in SECTIONS)):
            place = _place_of(node, missing=bool(rest), at_key=issue.at == "key")
            issue = attrs.evolve(issue, where=place.mark() if place else None)
        return self._without_secrets(issue, _secrets(node) if not rest else set())

    def _without_secrets(self, issue: Issue, own: set[str]) -> Issue:
        if not self.secrets:
            return issue
        hide = [text for text in self.secrets if len(text) >= 3 or text in own]
        if issue.found is not None and any(text in issue.found for text in hide):
            issue = attrs.evolve(issue, found=HIDDEN)
        return attrs.evolve(
            issue,
            problem=_scrub(issue.problem, hide),
            expected=_scrub(issue.expected, hide),
            hint=_scrub(issue.hint, hide),
            nearest=tuple(name for name in issue.nearest if name not in hide),
        )


def _place_of(node: Node, missing: bool, at_key: bool) -> Place | None:
    """Where an issue about a node points; one about what is missing below it points at what demands it."""
    if missing and isinstance(node.value, dict) and "_type_" in node.value:
        return node.value["_type_"].place or node.key
    return (node.key or node.place) if missing or at_key else (node.place or node.key)


def _scrub(text: T, secrets: list[str]) -> T:
    for secret in secrets if text is not None else ():
        text = text.replace(secret, "***")  # type: ignore[union-attr]
    return text


def _secrets(node: Node) -> set[str]:
    found = set(node.secrets)
    for _, child in node.children():
        found |= _secrets(child)
    return found


def find(root: Node, path: ConfigPath) -> tuple[Node, ConfigPath]:
    """The node at a path, or the last one on the way to it with what is left of the path.

    A spec's arguments are found under its `_kwargs_` too.
    """
    nodes, rest = descend(root, path)
    if rest and isinstance(nodes[-1].value, dict) and "_kwargs_" in nodes[-1].value:
        inner, left = descend(nodes[-1].value["_kwargs_"], rest)
        if len(inner) > 1:
            return inner[-1], left
    return nodes[-1], rest
