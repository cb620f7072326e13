"""`defaults:`: a file, and before it the files that it builds on."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from registry.issue import ConfigError, ConfigPath, Issue, nearest

from .merge import directive_issues
from .node import Node, Place, Source, kind
from .parse import parse


def read_source(path: Path, where: Place | None = None, at: ConfigPath = ()) -> Source:
    """The text of a file.

    Args:
        path: the file.
        where: the line that names it, for errors.
        at: the config path of that line.

    Raises:
        ConfigError: it is not there, is a folder, or is no UTF-8 text.
    """
    mark = where.mark() if where else None
    try:
        return Source(_shown(path), path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        near = _files_near(path)
        issue = Issue(path=at, problem="no such file", found=repr(_shown(path)), nearest=near, where=mark)
        raise ConfigError([issue]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([_no_text(path, error, at)]) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        issue = Issue(path=at, problem=f"cannot be read: {reason.lower()}", found=repr(_shown(path)), where=mark)
        raise ConfigError([issue]) from error


def _no_text(path: Path, error: UnicodeDecodeError, at: ConfigPath) -> Issue:
    """The issue about a file that is no text, at the byte that shows it."""
    before = error.object[: error.start].decode(errors="replace")
    source = Source(_shown(path), error.object.decode(errors="replace"))
    place = Place(source, before.count("\n") + 1, len(before) - before.rfind("\n"))
    return Issue(
        path=at,
        problem=f"is no UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}",
        where=place.mark(),
    )


def _shown(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") and path.is_absolute() else relative


def _files_near(path: Path) -> tuple[str, ...]:
    folder = path.parent
    if not folder.is_dir():
        return ()
    names = {entry.stem: entry.name for entry in folder.iterdir() if entry.suffix in (".yaml", ".yml")}
    return tuple(_shown(folder / names[stem]) for stem in nearest(path.stem, names))


def layers(path: Path, issues: list[Issue]) -> list[Node]:
    """A file's tree and, before it, those of the files under its `defaults:`, each once, where it is first named.

    Args:
        path: the file.
        issues: receives what is wrong and does not keep the rest from being read, see `parse`.

    Raises:
        ConfigError: with the issues of all the files; a cycle is reported with its chain.
    """
    walk = _Files(minor=issues)
    walk.visit(path, None, ())
    if walk.issues:
        raise ConfigError([*issues, *walk.issues])
    return walk.found


@attrs.define(kw_only=True)
class _Files:
    minor: list[Issue]
    found: list[Node] = attrs.field(factory=list)
    issues: list[Issue] = attrs.field(factory=list)
    done: set[Path] = attrs.field(factory=set)
    chain: list[Path] = attrs.field(factory=list)

    def visit(self, path: Path, where: Place | None, at: ConfigPath) -> None:
        full = Path(os.path.abspath(path))
        if full in self.chain:
            names = " → ".join(_shown(link) for link in [*self.chain[self.chain.index(full) :], full])
            mark = where.mark() if where else None
            self.issues.append(Issue(path=at, problem=f"defaults go in a circle: {names}", where=mark))
        elif full not in self.done:
            self.done.add(full)
            self.chain.append(full)
            try:
                root = parse_root(read_source(full, where, at), self.minor)
                self.visit_defaults(root, full)
                self.issues += directive_issues(root)
                self.found.append(_without(root, "defaults"))
            except ConfigError as error:
                self.issues += error.issues
            self.chain.pop()

    def visit_defaults(self, root: Node, file: Path) -> None:
        defaults = root.value.get("defaults")
        if defaults is None or defaults.value is None:
            return
        items = defaults.value if isinstance(defaults.value, list) else [defaults]
        for index, item in enumerate(items):
            if isinstance(item.value, str) and item.value and "\0" not in item.value:
                self.visit(file.parent / item.value, item.place, ("defaults", index))
            else:
                problem = "defaults is a path or a list of paths, relative to the file that names them"
                mark = item.place.mark() if item.place else None
                self.issues.append(Issue(path=("defaults", index), problem=problem, found=kind(item.value), where=mark))


def _without(root: Node, key: str) -> Node:
    return attrs.evolve(root, value={name: child for name, child in root.value.items() if name != key})


def parse_root(source: Source, issues: list[Issue]) -> Node:
    """A whole configuration's text as a mapping.

    Raises:
        ConfigError: as `parse`, or the text is no mapping.
    """
    root = parse(source, issues)
    if not isinstance(root.value, dict):
        where = root.place.mark() if root.place else None
        raise ConfigError([Issue(problem="a configuration is a mapping", found=kind(root.value), where=where)])
    refuse_directive(root)
    return root


def refuse_directive(root: Node) -> None:
    """Raise where a whole configuration is a `_merge_`, which has nothing to work on.

    Raises:
        ConfigError: it is.
    """
    if "_merge_" in root.value:
        place = root.value["_merge_"].key
        problem = "_merge_ belongs below a key, not at the top of a configuration"
        raise ConfigError([Issue(path=("_merge_",), problem=problem, where=place.mark() if place else None)])
