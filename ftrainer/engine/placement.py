"""A directory that is there whole or not at all.

It is filled as `.<name>.new`, synced and renamed to `<name>`. One of that name steps aside to `.<name>.old` first,
since a rename cannot replace a directory that holds files; readers look there when a crash fell in between.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .tensors import CheckpointError, refuse

T = TypeVar("T")


def put(directory: Path, name: str, fill: Callable[[Path], None]) -> Path:
    """Let `fill` write a directory's files, synced, and put the directory in place.

    Args:
        directory: the parent, made if missing.
        name: the directory's name; one that is there already is replaced.
        fill: writes into the directory that it is given.

    Returns:
        `directory / name`.

    Raises:
        CheckpointError: `name` is no plain file name.
        OSError: the disk is full, or may not be written to; a previous directory of this name stands.
    """
    if not name or name.startswith(".") or Path(name).name != name:
        raise refuse("a checkpoint's name must be a plain file name", found=repr(name))
    directory.mkdir(parents=True, exist_ok=True)
    target, new = directory / name, directory / f".{name}.new"
    settle(target)
    new.mkdir()
    try:
        fill(new)
        sync_directory(new)
        _swap_in(new, target)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)  # gives a full disk its room back
        raise
    return target


def present(path: Path) -> Path:
    """Where the checkpoint at `path` is now: there, or aside when a crash fell into its replacement."""
    aside = path.with_name(f".{path.name}.old")
    return aside if not path.exists() and aside.exists() else path


def identity(path: Path) -> tuple[str, int, int]:
    """Which directory is to be read, and where it stands: one that steps aside is no longer the one at its name."""
    place = present(path)
    try:
        found = place.stat()
    except FileNotFoundError:
        return ("", 0, 0)
    return place.name, found.st_ino, found.st_mtime_ns


def steadily(path: Path, look: Callable[[Path], T]) -> T:
    """Look at a checkpoint; again where it was not to be believed and a live run had replaced it meanwhile."""
    while True:
        before = identity(path)
        try:
            return look(path)
        except CheckpointError:
            if identity(path) == before:
                raise


def settle(target: Path) -> None:
    """Put back or clear away what a crash left of an earlier write."""
    aside = target.with_name(f".{target.name}.old")
    if aside.exists() and not target.exists():
        aside.rename(target)
    for leftover in (aside, target.with_name(f".{target.name}.new")):
        if leftover.exists():
            shutil.rmtree(leftover)


def is_leftover(path: Path) -> bool:
    """Whether a directory is what a crash left of a write or a removal, and nothing anybody should read."""
    if not path.name.startswith("."):
        return False
    name, _, stage = path.name[1:].rpartition(".")
    return stage == "new" or (stage == "old" and path.with_name(name).exists())


def discard(path: Path) -> None:
    """Remove a directory; one that a crash leaves half removed is a leftover under another name."""
    doomed = path.with_name(f".{path.name}.new")
    path.rename(doomed)
    shutil.rmtree(doomed)


def link(source: Path, new: Path, *names: str) -> None:
    """Fill `new` with second names for the files of `source`, or with copies where the file system knows no links."""
    for name in names:
        try:
            os.link(source / name, new / name)
        except OSError:  # a file system without hard links
            _copy_synced(source / name, new / name)


def _copy_synced(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _swap_in(new: Path, target: Path) -> None:
    """Rename `new` to `target`; between any two calls one of target and `.target.old` is whole."""
    aside = target.with_name(f".{target.name}.old")
    if target.exists():
        target.rename(aside)
    new.rename(target)
    sync_directory(target.parent)
    if aside.exists():
        shutil.rmtree(aside)


def sync_directory(directory: Path) -> None:
    """Make renames inside a directory outlive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
