"""Configurations broken on purpose, one place at a time, each with the place that the error must name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import yaml

ConfigPath = tuple[str | int, ...]

FREE_NAMES = (("io", "targets"), ("evaluators",), ("params",), ("templates",))
"""Mappings whose keys the user chooses: another name there is no mistake."""


@attrs.frozen(kw_only=True)
class Mutant:
    """A broken text.

    Attributes:
        way: how it was broken.
        path: where, as a config path.
        text: the whole broken file.
        places: 1-based (line, first column, last column): the error must point into one of them.
        right: what a misspelling should have been; the first suggestion must be this.
    """

    way: str
    path: ConfigPath
    text: str
    places: tuple[tuple[int, int, int], ...]
    right: str | None = None


@attrs.frozen(kw_only=True)
class Entry:
    """One `key: value` of a file, with PyYAML's nodes, whose marks are independent of the loader under test."""

    path: ConfigPath
    key: yaml.ScalarNode
    value: yaml.Node
    parent: yaml.MappingNode
    above: yaml.Node | None

    @property
    def name(self) -> str:
        return str(self.key.value)

    @property
    def flow(self) -> bool:
        return bool(self.parent.flow_style)


def entries(root: yaml.Node, path: ConfigPath = (), above: yaml.Node | None = None) -> Iterator[Entry]:
    """Every key of a file, outer ones first."""
    if isinstance(root, yaml.MappingNode):
        for key, value in root.value:
            yield Entry(path=(*path, key.value), key=key, value=value, parent=root, above=above)
            yield from entries(value, (*path, key.value), key)
    elif isinstance(root, yaml.SequenceNode):
        for index, item in enumerate(root.value):
            yield from entries(item, (*path, index), item)


def scalars(root: yaml.Node, path: ConfigPath = ()) -> Iterator[tuple[ConfigPath, yaml.ScalarNode]]:
    """Every scalar that is no key."""
    if isinstance(root, yaml.ScalarNode):
        yield path, root
    elif isinstance(root, yaml.MappingNode):
        for key, value in root.value:
            yield from scalars(value, (*path, key.value))
    else:
        for index, item in enumerate(root.value):
            yield from scalars(item, (*path, index))


def span(node: yaml.Node) -> tuple[int, int, int]:
    """Where a node is written: line, first column, last column."""
    start, end = node.start_mark, node.end_mark
    last = end.column if end.line == start.line else start.column + 1
    return start.line + 1, start.column + 1, max(last, start.column + 1)


def replaced(text: str, node: yaml.Node, new: str) -> str:
    """The text with a node's own text replaced; a block node ends before the line break that follows it."""
    start, end = node.start_mark.index, node.end_mark.index
    while end > start and text[end - 1] in "\n ":
        end -= 1
    return text[:start] + new + text[_without_comments(text, start, end) :]


def _without_comments(text: str, start: int, end: int) -> int:
    """A block node's end, pulled back over comment lines that belong to what follows."""
    lines = text[start:end].split("\n")
    while len(lines) > 1 and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
        lines.pop()
    return start + len("\n".join(lines))


def at(node: yaml.Node, width: int) -> tuple[int, int, int]:
    """A place of some width where a node began."""
    return node.start_mark.line + 1, node.start_mark.column + 1, node.start_mark.column + width


def misspelt(word: str) -> str:
    """A word with two letters swapped, or, where that changes nothing, one doubled."""
    head, dot, tail = word.rpartition(".")
    letters = list(tail)
    for i in range(len(letters) // 2, len(letters) - 1):
        if letters[i] != letters[i + 1] and letters[i].isalpha() and letters[i + 1].isalpha():
            letters[i], letters[i + 1] = letters[i + 1], letters[i]
            return head + dot + "".join(letters)
    return head + dot + tail[:-1] + 2 * tail[-1] if tail else word


def is_free(path: ConfigPath) -> bool:
    """Whether a key's name is the user's own choice."""
    parts = tuple(part for part in path if part != "_value_")
    return parts[:-1] in FREE_NAMES or path[0] in ("params", "templates")


def misspell_key(text: str, root: yaml.Node) -> Iterator[Mutant]:
    for entry in entries(root):
        if not is_free(entry.path) and len(entry.name) > 2:
            wrong = misspelt(entry.name)
            yield Mutant(
                way="misspell_key",
                path=entry.path,
                text=replaced(text, entry.key, wrong),
                places=(at(entry.key, len(wrong)),),
                right=entry.name,
            )


def misspell_type(text: str, root: yaml.Node) -> Iterator[Mutant]:
    for entry in entries(root):
        if entry.name == "_type_":
            wrong = misspelt(entry.value.value)
            yield Mutant(
                way="misspell_type",
                path=entry.path,
                text=replaced(text, entry.value, wrong),
                places=(at(entry.value, len(wrong)),),
                right=entry.value.value,
            )


def dropped(text: str, entry: Entry) -> str | None:
    """The text without an entry; None where it is the only one of its mapping."""
    siblings = entry.parent.value
    index = next(i for i, (key, _) in enumerate(siblings) if key is entry.key)
    start = entry.key.start_mark.index
    if len(siblings) == 1:
        return None
    if index + 1 < len(siblings):
        return text[:start] + text[siblings[index + 1][0].start_mark.index :]
    before = siblings[index - 1][1]
    end = entry.value.end_mark.index
    stop = _without_comments(text, before.start_mark.index, before.end_mark.index)
    while text[stop - 1] in "\n ":
        stop -= 1
    return text[:stop] + ("" if entry.flow else "\n") + text[end:]


def drop_required(required: Callable[[ConfigPath, yaml.MappingNode], set[str]]) -> Callable[..., Iterator[Mutant]]:
    """Drop every field that `required(path of the mapping, mapping)` names."""

    def mutate(text: str, root: yaml.Node) -> Iterator[Mutant]:
        for entry in entries(root):
            if entry.name not in required(entry.path[:-1], entry.parent):
                continue
            without = dropped(text, entry)
            if without is None:
                continue
            places = [span(entry.above)] if entry.above is not None else [span(root.value[0][0])]
            places += [
                behind(without, text, entry, value) for key, value in entry.parent.value if key.value == "_type_"
            ]
            places += [behind(without, text, entry, key) for key, _ in entry.parent.value if key.value == "_merge_"]
            places.append(span(entry.parent))
            yield Mutant(way="drop_required", path=entry.path, text=without, places=tuple(places))

    return mutate


def behind(without: str, text: str, entry: Entry, node: yaml.Node) -> tuple[int, int, int]:
    """Where a sibling of a dropped entry stands once it is gone."""
    index = node.start_mark.index
    if index > entry.key.start_mark.index:
        index -= len(text) - len(without)
    line_start = without.rfind("\n", 0, index) + 1
    column = index - line_start + 1
    return without.count("\n", 0, index) + 1, column, column + node.end_mark.index - node.start_mark.index


def unknown_field(text: str, root: yaml.Node) -> Iterator[Mutant]:
    done = set()
    for entry in entries(root):
        if id(entry.parent) in done or is_free(entry.path):
            continue
        done.add(id(entry.parent))
        start, new = entry.key.start_mark, "zzz_unknown: 1"
        glue = ", " if entry.flow else "\n" + " " * start.column
        yield Mutant(
            way="unknown_field",
            path=entry.path[:-1],
            text=text[: start.index] + new + glue + text[start.index :],
            places=(at(entry.key, len(new)),),
        )


def wrong_type(text: str, root: yaml.Node) -> Iterator[Mutant]:
    for path, node in scalars(root):
        if path[0] == "params":
            continue
        is_text = node.tag.endswith(":str")
        new = "12.5" if is_text else "surely_no_number"
        yield Mutant(way="wrong_type", path=path, text=replaced(text, node, new), places=(at(node, len(new)),))


def mapping_for_scalar(text: str, root: yaml.Node) -> Iterator[Mutant]:
    for path, node in scalars(root):
        if path[0] != "params":
            new = "{zzz: 1}"
            yield Mutant(
                way="mapping_for_scalar", path=path, text=replaced(text, node, new), places=(at(node, len(new)),)
            )


def duplicate_key(text: str, root: yaml.Node) -> Iterator[Mutant]:
    for entry in entries(root):
        start, new = entry.key.start_mark, f"{entry.name}: 0"
        glue = ", " if entry.flow else "\n" + " " * start.column
        if entry.flow:
            place = (
                start.line + 1,
                start.column + len(new + glue) + 1,
                start.column + len(new + glue) + len(entry.name),
            )
        else:
            place = (start.line + 2, start.column + 1, start.column + len(entry.name))
        yield Mutant(
            way="duplicate_key",
            path=entry.path,
            text=text[: start.index] + new + glue + text[start.index :],
            places=(place,),
        )


def in_every_scalar(way: str, new: str) -> Callable[[str, yaml.Node], Iterator[Mutant]]:
    """Put the same text in place of each scalar."""

    def mutate(text: str, root: yaml.Node) -> Iterator[Mutant]:
        for path, node in scalars(root):
            yield Mutant(way=way, path=path, text=replaced(text, node, new), places=(at(node, len(new)),))

    return mutate


def bad_merge_mode(text: str, root: yaml.Node) -> Iterator[Mutant]:
    for entry in entries(root):
        new = "{_merge_: apend, _value_: []}"
        line, column = entry.value.start_mark.line + 1, entry.value.start_mark.column + 1
        if not isinstance(entry.value, yaml.ScalarNode) and not entry.value.flow_style:
            line, column = entry.key.start_mark.line + 1, entry.key.end_mark.column + 3
        mode = column + new.index("apend")
        yield Mutant(
            way="bad_merge_mode",
            path=entry.path,
            text=on_key_line(text, entry, new),
            places=((line, mode, mode + 4),),
            right="append",
        )


def list_for_mapping(text: str, root: yaml.Node) -> Iterator[Mutant]:
    for entry in entries(root):
        if isinstance(entry.value, yaml.MappingNode) and entry.name not in ("params", "templates", "_value_"):
            new = "[zzz, 2]"
            line, column = entry.value.start_mark.line + 1, entry.value.start_mark.column + 1
            if not entry.value.flow_style:
                line, column = entry.key.start_mark.line + 1, entry.key.end_mark.column + 3
            yield Mutant(
                way="list_for_mapping",
                path=entry.path,
                text=on_key_line(text, entry, new),
                places=((line, column, column + len(new) - 1),),
            )


def on_key_line(text: str, entry: Entry, new: str) -> str:
    """The text with an entry's value written in flow style behind its key."""
    start, end = entry.value.start_mark.index, entry.value.end_mark.index
    if isinstance(entry.value, yaml.ScalarNode) or entry.value.flow_style:
        return text[:start] + new + text[end:]
    end = _without_comments(text, start, end)
    while text[end - 1] in "\n ":
        end -= 1
    return text[: entry.key.end_mark.index] + ": " + new + text[end:]


def bad_import(text: str, root: yaml.Node) -> Iterator[Mutant]:
    named = [entry for entry in entries(root) if entry.path == ("imports",)]
    if not named:
        first = root.value[0][0].start_mark
        new = "imports: [extensions.example_plugn]\n"
        place = (first.line + 1, new.index("[") + 2, new.index("]"))
        yield Mutant(
            way="bad_import",
            path=("imports", 0),
            text=text[: first.index] + new + text[first.index :],
            places=(place,),
            right="extensions.example_plugin",
        )
    for entry in named:
        for index, item in enumerate(entry.value.value):
            wrong = misspelt(item.value)
            yield Mutant(
                way="bad_import",
                path=("imports", index),
                text=replaced(text, item, wrong),
                places=(at(item, len(wrong)),),
                right=item.value,
            )


def tab_indentation(text: str, root: yaml.Node) -> Iterator[Mutant]:
    del root
    lines = text.split("\n")
    for number, line in enumerate(lines):
        body = line.lstrip(" ")
        if body and body != line and not body.startswith("#"):
            broken = "\n".join([*lines[:number], "\t" + body, *lines[number + 1 :]])
            yield Mutant(way="tab_indentation", path=(number + 1,), text=broken, places=((number + 1, 1, 1),))


def wrong_family(text: str, root: yaml.Node) -> Iterator[Mutant]:
    for entry in entries(root):
        if entry.name == "_type_" and len(entry.path) == 2:
            new = "log.stdout" if entry.path[0] != "loggers" else "data.csv"
            yield Mutant(
                way="wrong_family",
                path=entry.path,
                text=replaced(text, entry.value, new),
                places=(at(entry.value, len(new)),),
            )


WAYS: dict[str, Callable[[str, yaml.Node], Iterator[Mutant]]] = {
    "misspell_key": misspell_key,
    "misspell_type": misspell_type,
    "unknown_field": unknown_field,
    "wrong_type": wrong_type,
    "mapping_for_scalar": mapping_for_scalar,
    "duplicate_key": duplicate_key,
    "bad_interpolation": in_every_scalar("bad_interpolation", '"${no.such.path}"'),
    "bad_env": in_every_scalar("bad_env", '"${env:FTRAINER_NOT_SET}"'),
    "bad_env_type": in_every_scalar("bad_env_type", '"${env:int:FTRAINER_NOT_SET,eight}"'),
    "python_tag": in_every_scalar("python_tag", '!!python/name:os.system ""'),
    "bad_merge_mode": bad_merge_mode,
    "list_for_mapping": list_for_mapping,
    "bad_import": bad_import,
    "tab_indentation": tab_indentation,
    "wrong_family": wrong_family,
}
"""The ways that need no knowledge of components; `drop_required` is added by who knows what is required."""


def mutants(text: str, extra: dict[str, Any]) -> Iterator[Mutant]:
    """Every mutant of a file's text."""
    root = yaml.compose(text)
    for mutate in {**WAYS, **extra}.values():
        yield from mutate(text, root)
