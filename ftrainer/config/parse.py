"""YAML text to nodes with places: strict about what YAML leaves to chance."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import attrs
import yaml
from yaml.events import AliasEvent, MappingStartEvent, ScalarEvent

from registry.issue import ConfigError, ConfigPath, Issue

from .node import MAX_DEPTH, Node, Origin, Place, Source, kind, refuse_explosion, summary, too_deep
from .scalars import read_plain, read_tagged

LOADER: Any = getattr(yaml, "CLoader", yaml.Loader)
"""The C scanner is several times as fast; both give the same places, and neither constructs anything here."""

UNCOLONED = "could not find expected ':'"
"""Said of the line after the one that lacks it."""

_TABBED = re.compile(r"^ *\t")
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "!", None)


def parse(source: Source, issues: list[Issue], path: ConfigPath = (), how: str = "file") -> Node:
    """The one document of a text; an empty text is an empty mapping.

    Args:
        source: the text.
        issues: receives what is wrong and does not keep the rest from being read: duplicate keys, tags, keys that are
            no text, recursive aliases.
        path: the config path of the document's root.
        how: what the nodes' origin is called.

    Raises:
        ConfigError: the text is no YAML.
    """
    reader = _Reader(source=source, how=how, events=_events(source), issues=issues)
    node = reader.document(path)
    if reader.anchors:
        refuse_explosion(node)
    return node


def _events(source: Source) -> Iterator[Any]:
    try:
        yield from yaml.parse(source.text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_issue(source, error)]) from error
    except yaml.reader.ReaderError as error:
        before = source.text[: error.position]
        place = Place(source, before.count("\n") + 1, len(before) - before.rfind("\n"))
        code = error.character if isinstance(error.character, int) else ord(error.character)
        problem = f"holds the character U+{code:04X}, which YAML does not allow"
        raise ConfigError([Issue(problem=problem, where=place.mark())]) from error
    except UnicodeEncodeError as error:
        raise ConfigError([Issue(problem="holds half a surrogate pair, which is no character")]) from error


def _syntax_issue(source: Source, error: yaml.MarkedYAMLError) -> Issue:
    began = error.context_mark
    mark = began if began and error.problem == UNCOLONED else error.problem_mark or began
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    text = source.line(line)
    if _TABBED.match(text):
        problem, hint = "a tab in the indentation", "indent with spaces"
        return Issue(problem=problem, hint=hint, where=Place(source, line, text.index("\t") + 1).mark())
    since = f", which begins on line {began.line + 1}" if began and mark and began.line != mark.line else ""
    about = f" {error.context}{since}:" if error.context else ""
    hint_text = 'inside { } and [ ] write "${…}" in quotes' if "${" in text else None
    return Issue(
        problem=f"is no YAML:{about} {error.problem}", hint=hint_text, where=Place(source, line, column).mark()
    )


@attrs.define(kw_only=True)
class _Reader:
    """Reads one stream of events; `issues` collects what is wrong while it goes on."""

    source: Source
    how: str
    events: Iterator[Any]
    issues: list[Issue]
    anchors: dict[str, Node | None] = attrs.field(factory=dict)

    def document(self, path: ConfigPath) -> Node:
        events = [next(self.events), next(self.events)]
        if isinstance(events[-1], yaml.StreamEndEvent):
            return Node(value={}, place=Place(self.source, 1, 1), how=self.how)
        node = self.node(next(self.events), path)
        next(self.events)
        extra = next(self.events)
        if not isinstance(extra, yaml.StreamEndEvent):
            where = self.place(extra).mark()
            self.issues.append(Issue(problem="a second document begins; a configuration is one", where=where))
        return node

    def place(self, event: Any) -> Place:
        start, end = event.start_mark, event.end_mark
        width = end.column - start.column if end.line == start.line else 1
        return Place(self.source, start.line + 1, start.column + 1, width)

    def node(self, event: Any, path: ConfigPath) -> Node:
        if isinstance(event, ScalarEvent):
            node = self.scalar(event, path)
        elif isinstance(event, AliasEvent):
            return self.alias(event, path)
        else:
            if event.anchor:
                self.anchors[event.anchor] = None
            node = self.collection(event, path)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def scalar(self, event: ScalarEvent, path: ConfigPath) -> Node:
        place = self.place(event)
        try:
            value = self.scalar_value(event)
        except ValueError as error:
            self.issues.append(Issue(path=path, problem=str(error), found=event.tag or event.value, where=place.mark()))
            value = event.value
        return Node(value=value, place=place, how=self.how)

    def scalar_value(self, event: ScalarEvent) -> Any:
        if event.tag:
            return read_tagged(event.tag, event.value)
        return event.value if event.style else read_plain(event.value)

    def alias(self, event: AliasEvent, path: ConfigPath) -> Node:
        if event.anchor not in self.anchors:
            place = self.place(event)
            problem = f"no anchor &{event.anchor} stands before this alias"
            self.issues.append(Issue(path=path, problem=problem, where=place.mark()))
            return Node(value=None, place=place, how=self.how)
        target = self.anchors[event.anchor]
        if target is None:
            problem = f"the alias *{event.anchor} stands inside its own anchor"
            self.issues.append(Issue(path=path, problem=problem, where=self.place(event).mark()))
            return Node(value=None, place=self.place(event), how=self.how)
        step = Origin("anchor", target.place, f"&{event.anchor}")
        return attrs.evolve(target, place=self.place(event), key=None, history=(*target.history, step))

    def collection(self, event: Any, path: ConfigPath) -> Node:
        place = self.place(event)
        if len(path) > MAX_DEPTH:
            raise ConfigError([too_deep(path, place)])
        if event.tag not in _COLLECTIONS:
            problem = "tags that would construct objects are refused"
            self.issues.append(Issue(path=path, problem=problem, found=event.tag, where=place.mark()))
        read = self.mapping if isinstance(event, MappingStartEvent) else self.sequence
        return Node(value=read(path), place=place, how=self.how)

    def sequence(self, path: ConfigPath) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, (*path, len(items))))
        return items

    def mapping(self, path: ConfigPath) -> dict[str, Node]:
        items: dict[str, Node] = {}
        merged: list[Node] = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            place = self.place(event)
            name = self.key_name(event, path, place)
            child = self.node(next(self.events), (*path, name))
            if name in items:
                self.issues.append(self.duplicate(items[name], (*path, name), place))
            items[name] = attrs.evolve(child, key=place)
            if name == "<<" and not event.style:
                merged = self.merged(child, place, path)
        if merged:
            del items["<<"]
        for base in merged:
            items = {**base.value, **items}
        return items

    def key_name(self, event: Any, path: ConfigPath, place: Place) -> str:
        key = self.node(event, (*path, "?"))
        if not isinstance(key.value, str):
            hint = "write it in quotes" if isinstance(event, ScalarEvent) else None
            self.issues.append(
                Issue(path=path, problem="keys are text", found=summary(key), hint=hint, where=place.mark())
            )
            return f"?{place.line}:{place.column}"
        return key.value

    def merged(self, child: Node, place: Place, path: ConfigPath) -> list[Node]:
        bases = child.value if isinstance(child.value, list) else [child]
        wrong = [base for base in bases if not isinstance(base.value, dict)]
        if wrong:
            issue = Issue(
                path=(*path, "<<"), problem="a merge key takes a mapping, or a list of them", found=kind(wrong[0].value)
            )
            self.issues.append(attrs.evolve(issue, where=place.mark()))
            return []
        return bases

    def duplicate(self, first: Node, path: ConfigPath, place: Place) -> Issue:
        line = first.key.line if first.key else "?"
        problem = f"duplicate key: it stands on line {line} and on line {place.line}"
        return Issue(path=path, problem=problem, found=repr(path[-1]), hint="keep one of the two", where=place.mark())
