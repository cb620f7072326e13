"""Checkpoints: a directory that is there whole or not at all, checked byte by byte before anything in it is believed.

`<directory>/<name>/state.safetensors` holds every leaf of a `TrainState` under its pytree path, `manifest.json` the
rest. There is no pickle, so that reading a stranger's file runs nothing. Both files are written into `.<name>.new`,
synced, and renamed to `<name>`; a checkpoint of that name steps aside to `.<name>.old` first, and readers look there
when a crash fell in between.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftrainer.functional import pytree
from ftrainer.functional.state import TrainState
from registry.issue import Issue

from .jsontext import canonical, decode, encode
from .tensors import CheckpointError, Leaf, describe, leaves_of, read_tensors, refuse, sha256_of, write_tensors

FORMAT = 1
KIND = "ftrainer checkpoint"
TENSORS, MANIFEST = "state.safetensors", "manifest.json"
RESERVED = ("kind", "format", "digest", "tensors", "leaves", "learner", "step", "tick", "environment", "written_at")


def write(directory: Path, name: str, state: TrainState, manifest: Mapping[str, Any]) -> Path:
    """Save a state so that, whatever happens meanwhile, a checkpoint of this name is never half there.

    Args:
        directory: where checkpoints of the run live; made if missing.
        name: the checkpoint's own directory in it.
        state: any leaves: 0-d, strided, sharing storage, on any device.
        manifest: what goes with it as JSON data: cursor, callback states, configuration, backend.

    Returns:
        `directory / name`.

    Raises:
        CheckpointError: a leaf or a manifest entry that a checkpoint cannot hold, or a name that is no plain file name.
        OSError: the disk is full, or may not be written to. A previous checkpoint of this name stands.
    """
    return write_leaves(directory, name, leaves_of(state), {**about(state), **_checked(manifest)})


def write_leaves(directory: Path, name: str, leaves: Mapping[str, Tensor], content: Mapping[str, Any]) -> Path:
    """`write` for leaves that were taken out of their state before, with `about(state)` in `content`."""
    if name.startswith(".") or Path(name).name != name:
        raise refuse("a checkpoint's name must be a plain file name", found=repr(name))
    directory.mkdir(parents=True, exist_ok=True)
    target, new = directory / name, directory / f".{name}.new"
    settle(target)
    try:
        _fill(new, leaves, content)
        _swap_in(new, target)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)  # gives a full disk its room back
        raise
    return target


def about(state: TrainState) -> dict[str, Any]:
    """What every manifest says of the state and of the machine; reading the counters waits for the device."""
    return {
        "learner": learner_name(state),
        "step": int(state.step),
        "tick": int(state.tick),
        "environment": environment(),
        "written_at": time.time(),
    }


def environment() -> dict[str, Any]:
    """The versions and settings under which a resumed run is bitwise the same."""
    return {
        "ftrainer": _version("ftrainer"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def drift(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """What differs between the checkpoint's environment and this one, as `name: then -> now`; exactness ends there."""
    then, now = manifest["environment"], environment()
    return tuple(f"{name}: {then.get(name)} -> {now[name]}" for name in now if then.get(name) != now[name])


def load_manifest(path: Path) -> dict[str, Any]:
    """A checkpoint's manifest, its own digest verified.

    Raises:
        CheckpointError: no checkpoint is there, the manifest is damaged, or its format is not this version's.
    """
    return decode(_load_manifest(present(path)))


def verify(path: Path) -> dict[str, Any]:
    """Check every byte of a checkpoint; its manifest.

    Raises:
        CheckpointError: what is wrong with it.
    """
    place = present(path)
    manifest = _load_manifest(place)
    tensors = place / TENSORS
    if not tensors.is_file():
        raise _damaged(path, f"{TENSORS} is missing")
    if sha256_of(tensors) != manifest["tensors"]["sha256"]:
        raise _damaged(path, f"{TENSORS} does not have the digest that the manifest gives")
    return decode(manifest)


def read(path: Path, template: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Restore a state, after both files' digests were verified.

    Args:
        path: a checkpoint's directory.
        template: a state of the program that wants it: structure, dtypes, shapes, devices and program are its.

    Returns:
        The state, on the template's devices, and the manifest.

    Raises:
        CheckpointError: the checkpoint is missing or damaged, or does not fit: one issue for each leaf, by path.
    """
    manifest = verify(path)
    saved = tuple(Leaf(leaf["path"], leaf["dtype"], tuple(leaf["shape"])) for leaf in manifest["leaves"])
    wanted = leaves_of(template)
    issues = misfits(saved, describe(wanted))
    if issues:
        raise CheckpointError([_headline(path, manifest, template, len(issues)), *issues])
    tensors = read_tensors(present(path) / TENSORS, saved)
    restored = [tensors[name].to(leaf.device, copy=True) for name, leaf in wanted.items()]
    return pytree.unflatten(pytree.structure(template), restored), manifest


def misfits(saved: Iterable[Leaf], wanted: Iterable[Leaf]) -> tuple[Issue, ...]:
    """One issue for each leaf that a checkpoint and a program do not share, by path."""
    theirs, ours = {leaf.path: leaf for leaf in saved}, {leaf.path: leaf for leaf in wanted}
    issues = []
    for path in sorted(theirs.keys() | ours.keys()):
        found, expected = theirs.get(path), ours.get(path)
        if found is None:
            issues.append(Issue(problem=f"{path}: missing from the checkpoint", expected=str(expected)))
        elif expected is None:
            issues.append(Issue(problem=f"{path}: unknown to this program", found=str(found)))
        elif found != expected:
            what = "dtype" if found.shape == expected.shape else "shape"
            issues.append(Issue(problem=f"{path}: another {what}", found=str(found), expected=str(expected)))
    return tuple(issues)


def latest(*directories: Path) -> tuple[Path | None, tuple[Issue, ...]]:
    """The intact checkpoint that was written last, and an issue for each newer one that was passed over."""
    dated, skipped = [], []
    for place in (place for directory in directories for place in stored(directory)):
        try:
            dated.append((load_manifest(place)["written_at"], place))
        except CheckpointError as error:
            skipped.extend(error.issues)
    for _, place in sorted(dated, reverse=True):
        try:
            verify(place)
        except CheckpointError as error:
            skipped.extend(error.issues)
        else:
            return place, tuple(skipped)
    return None, tuple(skipped)


def prune(directory: Path, names: Iterable[str]) -> tuple[str, ...]:
    """Remove checkpoints by name, but never the last intact one; the names that are gone."""
    doomed = [directory / name for name in names if (directory / name).is_dir()]
    staying = [place for place in stored(directory) if place not in doomed]
    if not any(_is_intact(place) for place in reversed(staying)):
        spared = next((place for place in reversed(doomed) if _is_intact(place)), None)
        doomed = [place for place in doomed if place != spared]
    for place in doomed:
        shutil.rmtree(place)
    return tuple(place.name for place in doomed)


def stored(directory: Path) -> list[Path]:
    """The checkpoints in a directory, oldest first, damaged ones and one caught stepping aside included."""
    found = {present(path) for path in directory.iterdir() if _names_checkpoint(path)} if directory.is_dir() else set()
    return sorted((path for path in found if path.is_dir()), key=lambda path: (path.stat().st_mtime_ns, path.name))


def present(path: Path) -> Path:
    """Where the checkpoint at `path` is now: there, or aside when a crash fell into its replacement."""
    aside = path.with_name(f".{path.name}.old")
    return aside if not path.exists() and aside.exists() else path


def settle(target: Path) -> None:
    """Put back or clear away what a crash left of an earlier write."""
    aside = target.with_name(f".{target.name}.old")
    if aside.exists() and not target.exists():
        aside.rename(target)
    for leftover in (aside, target.with_name(f".{target.name}.new")):
        if leftover.exists():
            shutil.rmtree(leftover)


def learner_name(state: TrainState) -> str:
    """The class that a state's program trains with, as a manifest names it."""
    cls = type(getattr(state.program, "learner", None))
    return f"{cls.__module__}.{cls.__qualname__}"


def _checked(manifest: Mapping[str, Any]) -> dict[str, Any]:
    taken = [key for key in manifest if key in RESERVED]
    if taken:
        raise refuse("the checkpoint fills these manifest entries itself", found=", ".join(taken))
    return dict(manifest)


def _fill(new: Path, leaves: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
    new.mkdir()
    digest = write_tensors(new / TENSORS, leaves)
    listed = [{"path": leaf.path, "dtype": leaf.dtype, "shape": leaf.shape} for leaf in describe(leaves)]
    whole = {"kind": KIND, "format": FORMAT, "tensors": {"file": TENSORS, "sha256": digest}, "leaves": listed, **content}
    with (new / MANIFEST).open("wb") as file:
        file.write(_sealed(whole))
        file.flush()
        os.fsync(file.fileno())
    sync_directory(new)


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


def _sealed(content: Mapping[str, Any]) -> bytes:
    try:
        plain = encode(content)
    except TypeError as error:
        raise refuse(f"the manifest holds what JSON cannot: {error}") from error
    return canonical({**plain, "digest": _digest(plain)}).encode()


def _digest(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(plain).encode()).hexdigest()


def _load_manifest(place: Path) -> dict[str, Any]:
    """The encoded manifest: believed only if its text is, to the byte, what its content is written as."""
    file = place / MANIFEST
    if not file.is_file():
        raise _damaged(place, f"{MANIFEST} is missing") if place.is_dir() else refuse(f"{place}: no checkpoint there")
    raw = file.read_bytes()
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _damaged(place, f"{MANIFEST} is no JSON") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise _damaged(place, f"{MANIFEST} is no manifest of ours")
    if canonical(content).encode() != raw or content.pop("digest", None) != _digest(content):
        raise _damaged(place, f"{MANIFEST} does not have its own digest")
    if content["format"] != FORMAT:
        raise refuse(f"{place}: another format", found=repr(content["format"]), expected=repr(FORMAT))
    return content


def _damaged(path: Path, how: str) -> CheckpointError:
    return refuse(f"{path}: damaged checkpoint: {how}")


def _is_intact(path: Path) -> bool:
    try:
        verify(path)
    except CheckpointError:
        return False
    return True


def _names_checkpoint(path: Path) -> bool:
    is_ours = (path / MANIFEST).exists() or (path / TENSORS).exists()
    return is_ours and not (path.name.startswith(".") and path.name.endswith(".new"))


def _headline(path: Path, manifest: Mapping[str, Any], template: TrainState, count: int) -> Issue:
    theirs, ours = manifest["learner"], learner_name(template)
    if theirs != ours:
        return Issue(problem=f"{path}: a checkpoint of another program", found=theirs, expected=ours)
    return Issue(problem=f"{path}: {count} leaves of the checkpoint do not fit this program")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
