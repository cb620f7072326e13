"""`${…}` replaced by what it names; every replaced value remembers the expression and where it led."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from registry.issue import ConfigError, ConfigPath, Issue, dotted, nearest

from .expressions import CONVERSIONS, Expression, convert_env, find_expressions, read_env, unescape
from .node import Node, Origin, Place, from_python, kind, refuse_explosion, scalar_text
from .overrides import split_path

MAX_CHAIN = 40
MAX_ACTIVE = 150
MAX_TEXT = 100_000


def interpolate(root: Node, environ: Mapping[str, str], issues: list[Issue]) -> Node:
    """The tree with every interpolation replaced.

    Args:
        root: merged, templates expanded.
        environ: the variables that `${env:…}` may read.
        issues: receives every unknown path and variable, value of the wrong form, and cycle (with its chain); the
            texts in question stay as they are.

    Raises:
        ConfigError: the result would not fit in memory.
    """
    result = _Interpolator(root=root, environ=environ, issues=issues).resolve(root, ())
    refuse_explosion(result)
    return result


class _Failed(Exception):
    """An expression has no value; its issue is recorded already."""


@attrs.define(kw_only=True)
class _Interpolator:
    root: Node
    environ: Mapping[str, str]
    issues: list[Issue]
    done: dict[ConfigPath, Node] = attrs.field(factory=dict)
    active: list[ConfigPath] = attrs.field(factory=list)
    hops: int = 0

    def resolve(self, node: Node, path: ConfigPath) -> Node:
        """One node with what stands below it; parts without interpolations stay the same objects."""
        if isinstance(node.value, str):
            return self.scalar(node, path) if "${" in node.value else node
        if not isinstance(node.value, (dict, list)):
            return node
        self.active.append(path)
        children = [(key, child, self.resolve(child, (*path, key))) for key, child in node.children()]
        self.active.pop()
        if all(new is old for _, old, new in children):
            return node
        if isinstance(node.value, dict):
            return attrs.evolve(node, value={key: new for key, _, new in children})
        return attrs.evolve(node, value=[new for _, _, new in children])

    def scalar(self, node: Node, path: ConfigPath) -> Node:
        """A text with interpolations, read once."""
        if path not in self.done:
            if self.hops >= MAX_CHAIN or len(self.active) > MAX_ACTIVE:
                self.refuse(node, path, "interpolations lead on through too many others")
                return node
            self.active.append(path)
            self.hops += 1
            try:
                self.done[path] = self.evaluate(node, path)
            except _Failed:
                self.done[path] = node
            finally:
                self.active.pop()
                self.hops -= 1
        return self.done[path]

    def evaluate(self, node: Node, path: ConfigPath) -> Node:
        text = node.value
        try:
            expressions = find_expressions(text)
        except ValueError as error:
            raise self.failure(node, path, error.args[0], offset=error.args[1]) from None
        if len(expressions) == 1 and expressions[0].start == 0 and expressions[0].end == len(text):
            return self.whole(node, path, expressions[0])
        return self.embedded(node, path, expressions)

    def whole(self, node: Node, path: ConfigPath, expression: Expression) -> Node:
        """`${…}` alone: the value keeps its type."""
        target = self.value_of(node, path, expression)
        step = Origin("interpolation", node.place, node.value)
        history = (*node.history, step, *target.history, *([target.origin()] if target.place else []))
        shown = None if target.shown is None else node.value
        return attrs.evolve(target, place=node.place, key=node.key, history=history, how=node.how, shown=shown)

    def embedded(self, node: Node, path: ConfigPath, expressions: list[Expression]) -> Node:
        """`${…}` inside text: the value becomes text."""
        parts: list[str] = []
        secrets: tuple[str, ...] = ()
        history = [*node.history, Origin("interpolation", node.place, node.value)]
        position = 0
        for expression in expressions:
            target = self.value_of(node, path, expression)
            if isinstance(target.value, (dict, list)):
                problem = f"${{{expression.text}}} stands inside text, and is {kind(target.value)}"
                raise self.failure(node, path, problem, offset=expression.start)
            parts += [unescape(node.value[position : expression.start]), scalar_text(target.value)]
            secrets = (*secrets, *target.secrets)
            history += [target.origin()] if target.place else []
            position = expression.end
        text = "".join([*parts, unescape(node.value[position:])])
        if len(text) > MAX_TEXT:
            raise self.failure(node, path, f"interpolations make a text of more than {MAX_TEXT} characters")
        shown = node.value if secrets else None
        return attrs.evolve(node, value=text, secrets=secrets, shown=shown, history=tuple(history))

    def value_of(self, node: Node, path: ConfigPath, expression: Expression) -> Node:
        text = expression.text.lstrip()
        if text.startswith("env:"):
            return self.from_env(node, path, expression, text.removeprefix("env:"))
        return self.from_path(node, path, expression, text.rstrip())

    def from_env(self, node: Node, path: ConfigPath, expression: Expression, text: str) -> Node:
        at = expression.start
        try:
            env = read_env(text)
        except ValueError as error:
            near = nearest(text.split(":")[0], CONVERSIONS)
            expected = "env:VAR, or env:int:VAR with int, float, bool or json; a default after a comma"
            raise self.failure(node, path, str(error), offset=at, expected=expected, nearest=near) from None
        given = env.variable in self.environ
        raw = self.environ.get(env.variable, env.default)
        if raw is None:
            hint = f"set it, or give a default: ${{env:{text},…}}"
            problem = f"the environment variable {env.variable!r} is not set"
            raise self.failure(
                node, path, problem, offset=at, hint=hint, nearest=nearest(env.variable, self.environ, n=1)
            )
        try:
            value = from_python(convert_env(env, raw, given), node.how, path)
        except ValueError as error:
            raise self.failure(node, path, str(error), offset=at) from None
        except ConfigError as error:
            raise self.failure(node, path, error.issues[0].problem, offset=at) from None
        return _hidden(value, _secrets_of(raw, value), f"${{{expression.text}}}") if given else value

    def from_path(self, node: Node, path: ConfigPath, expression: Expression, text: str) -> Node:
        try:
            parts, columns = split_path(text)
        except ValueError as error:
            raise self.failure(node, path, f"${{{text}}} {error}", offset=expression.start) from None
        found = self.root
        at: ConfigPath = ()
        for part, column in zip(parts, columns, strict=True):
            if isinstance(found.value, str) and "${" in found.value:
                found = self.step(found, at, node, path, expression)
            children = {str(key): (key, child) for key, child in found.children()}
            if part not in children:
                problem = f"${{{text}}} leads nowhere: {dotted(at) or 'the configuration'} has no {part!r}"
                near = nearest(part, children)
                whole = tuple(".".join([*parts[: len(at)], name, *parts[len(at) + 1 :]]) for name in near)
                raise self.failure(node, path, problem, offset=expression.start + 2 + column, nearest=whole)
            key, found = children[part]
            at = (*at, key)
        return self.step(found, at, node, path, expression)

    def step(self, found: Node, at: ConfigPath, node: Node, path: ConfigPath, expression: Expression) -> Node:
        """What an expression leads to, itself resolved."""
        if at in self.active:
            chain = [*self.active[self.active.index(at) :], at]
            circle = " → ".join(dotted(link) for link in chain if link)
            raise self.failure(node, path, f"interpolations go in a circle: {circle}", offset=expression.start)
        seen = len(self.issues)
        resolved = self.resolve(found, at)
        if len(self.issues) > seen or self.done.get(at) is found:
            raise _Failed
        return resolved

    def failure(self, node: Node, path: ConfigPath, problem: str, offset: int = 0, **details: Any) -> _Failed:
        self.refuse(node, path, problem, offset, **details)
        return _Failed()

    def refuse(self, node: Node, path: ConfigPath, problem: str, offset: int = 0, **details: Any) -> None:
        place = _inside(node, offset)
        self.issues.append(Issue(path=path, problem=problem, where=place.mark() if place else None, **details))


def _inside(node: Node, offset: int) -> Place | None:
    """Where a part of a scalar stands; the scalar's start where quotes, folds or escapes blur the columns."""
    place = node.place
    if place is None:
        return None
    line = place.source.line(place.line)
    for shift in (0, 1):
        start = place.column - 1 + shift
        if line[start : start + len(node.value)] == node.value:
            return place._replace(column=place.column + shift + offset, width=max(1, place.width - shift - offset))
    return place


def _hidden(node: Node, secrets: tuple[str, ...], shown: str) -> Node:
    """A value from the environment, marked as such in all its parts."""
    value = node.value
    if isinstance(value, dict):
        value = {key: _hidden(child, secrets, shown) for key, child in value.items()}
    elif isinstance(value, list):
        value = [_hidden(child, secrets, shown) for child in value]
    return attrs.evolve(node, value=value, secrets=secrets, shown=shown)


def _secrets_of(raw: str, value: Node) -> tuple[str, ...]:
    inner = [text for _, child in value.children() for text in _secrets_of("", child)]
    own = [] if isinstance(value.value, (dict, list)) else [scalar_text(value.value)]
    return tuple(text for text in dict.fromkeys([raw, raw.strip(), *own, *inner]) if text)
