"""Checkpoints: a directory that is there whole or not at all, checked byte by byte before anything in it is believed.

`<directory>/<name>/state.safetensors` holds every leaf of a `TrainState` under its pytree path, `manifest.json` the
rest. There is no pickle, so that reading a stranger's file runs nothing.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
from torch import Tensor

from ftrainer.functional import pytree
from ftrainer.functional.state import TrainState
from registry.issue import Issue

from .environment import environment
from .manifest import SealError, encode, sealed, unsealed
from .placement import discard, identity, is_leftover, link, present, put, steadily
from .tensors import CheckpointError, Leaf, describe, leaves_of, misfits, read_tensors, refuse, sha256_of, write_tensors

FORMAT = 1
KIND = "ftrainer checkpoint"
TENSORS, MANIFEST = "state.safetensors", "manifest.json"
SCHEMA: Mapping[str, Any] = MappingProxyType(
    {"kind": str, "format": int, "tensors": dict, "leaves": list, "learner": str, "step": int, "tick": int,
     "environment": dict, "written_at": float}
)  # fmt: skip
"""What every manifest holds, besides what the caller of `write` puts in."""


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
    return write_leaves(directory, name, leaves_of(state), complete(state, manifest))


def write_leaves(directory: Path, name: str, leaves: Mapping[str, Tensor], content: Mapping[str, Any]) -> Path:
    """`write` for leaves that were taken out of their state before, `content` being from `complete`."""
    return put(directory, name, lambda new: _fill(new, leaves, content))


def duplicate(source: Path, directory: Path, name: str) -> Path:
    """Give a checkpoint a second name, without a second copy of its bytes where the file system can do that.

    Raises:
        CheckpointError: the name is no plain file name.
        OSError: `source` is gone, or the disk is full.
    """
    return put(directory, name, lambda new: link(source, new, TENSORS, MANIFEST))


def complete(state: TrainState, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's content but for the tensors: the caller's part, the state's counters, the machine.

    Reading the counters waits for the device.

    Raises:
        CheckpointError: the caller's part is no JSON data, or names an entry that is filled in here.
    """
    taken = [key for key in manifest if key in SCHEMA]
    if taken:
        raise refuse("the checkpoint fills these manifest entries itself", found=", ".join(taken))
    try:
        given = encode(manifest)
    except TypeError as error:
        raise refuse(f"the manifest holds what JSON cannot: {error}") from error
    return {
        **given,
        "learner": learner_name(state),
        "step": int(state.step.max()),
        "tick": int(state.tick.max()),
        "environment": environment(),
        "written_at": time.time(),
    }


def load_manifest(path: Path) -> dict[str, Any]:
    """A checkpoint's manifest, its own digest verified.

    Raises:
        CheckpointError: no checkpoint is there, the manifest is damaged, or its format is not this version's.
    """
    return steadily(path, _manifest)


def verify(path: Path) -> dict[str, Any]:
    """Check every byte of a checkpoint; its manifest.

    Raises:
        CheckpointError: what is wrong with it.
    """
    return steadily(path, _verified)


def load(path: Path) -> tuple[bytes, tuple[Leaf, ...], dict[str, Any]]:
    """A checkpoint's tensors as they lie in its file, what they are, and the manifest; all digests verified.

    Raises:
        CheckpointError: what is wrong with it.
    """
    return steadily(path, _loaded)


def read(path: Path, template: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Restore a state, after both files' digests were verified.

    Every leaf must fit. What is no leaf may differ from the program that saved: length, batch size, learning rate,
    schedules without state, callbacks, loggers.

    Args:
        path: a checkpoint's directory.
        template: a state of the program that wants it: structure, dtypes, shapes, devices and program are its.

    Returns:
        The state, on the template's devices, and the manifest.

    Raises:
        CheckpointError: the checkpoint is missing or damaged, or does not fit: one issue for each leaf, by path.
    """
    raw, saved, manifest = load(path)
    wanted = leaves_of(template)
    issues = misfits(saved, describe(wanted))
    if issues:
        raise CheckpointError([_headline(path, manifest, template, len(issues)), *issues])
    tensors = read_tensors(raw, saved)
    # Copied into torch's own, aligned memory: matrix products may round differently elsewhere.
    restored = [tensors.pop(name).to(leaf.device, copy=True) for name, leaf in wanted.items()]
    return pytree.unflatten(pytree.structure(template), restored), manifest


def latest(*directories: Path) -> tuple[Path | None, tuple[Issue, ...]]:
    """The intact checkpoint that was written last, and an issue for each newer one that was passed over."""
    dated: list[tuple[float, Path]] = []
    skipped: list[Issue] = []
    for place in (place for directory in directories for place in stored(directory)):
        try:
            dated.append((load_manifest(place)["written_at"], place))
        except CheckpointError as error:
            skipped.extend(error.issues if present(place).exists() else ())  # else a live run pruned it
    for _, place in sorted(dated, reverse=True):
        try:
            verify(place)
        except CheckpointError as error:
            skipped.extend(error.issues if present(place).exists() else ())
        else:
            return place, tuple(skipped)
    return None, tuple(skipped)


def prune(directory: Path, names: Iterable[str], trusted: Path | None = None) -> tuple[str, ...]:
    """Remove checkpoints by name, but never the last intact one.

    Args:
        directory: where they lie.
        names: of those to remove.
        trusted: one that this process just wrote, and need not read again to know that it is intact.

    Returns:
        The names that are gone.
    """
    doomed = [directory / name for name in names if (directory / name).is_dir()]
    staying = [place for place in stored(directory) if place not in doomed]
    if doomed and trusted not in staying and not any(_is_intact(place) for place in reversed(staying)):
        spared = next((place for place in reversed(doomed) if _is_intact(place)), None)
        doomed = [place for place in doomed if place != spared]
    for place in doomed:
        discard(place)
    return tuple(place.name for place in doomed)


def stored(directory: Path) -> list[Path]:
    """The checkpoints in a directory, oldest first, damaged ones and one caught stepping aside included."""
    found = [path for path in directory.iterdir() if _is_checkpoint(path)] if directory.is_dir() else []
    return sorted(found, key=lambda path: (identity(path)[2], path.name))


def learner_name(state: TrainState) -> str:
    """The class that a state's program trains with, as a manifest names it."""
    cls = type(getattr(state.program, "learner", None))
    return f"{cls.__module__}.{cls.__qualname__}"


def _manifest(path: Path) -> dict[str, Any]:
    place = present(path)
    if not place.is_dir():
        raise refuse(f"{path}: no checkpoint there")
    try:
        content = unsealed((place / MANIFEST).read_bytes())
    except OSError as error:
        raise _damaged(path, f"{MANIFEST}: {error.strerror}") from error
    except SealError as error:
        raise _damaged(path, f"{MANIFEST} {error}") from error
    if content.get("kind") != KIND or content.get("format") != FORMAT:
        found = f"{content.get('kind')!r}, format {content.get('format')!r}"
        raise refuse(f"{path}: another kind of file", found=found, expected=f"{KIND!r}, format {FORMAT!r}")
    if not all(isinstance(content.get(name), kind) for name, kind in SCHEMA.items()):
        raise _damaged(path, f"{MANIFEST} lacks an entry")
    return content


def _verified(path: Path) -> dict[str, Any]:
    manifest = _manifest(path)
    try:
        digest = sha256_of(present(path) / TENSORS)
    except OSError as error:
        raise _damaged(path, f"{TENSORS}: {error.strerror}") from error
    _compare(path, manifest, digest)
    return manifest


def _loaded(path: Path) -> tuple[bytes, tuple[Leaf, ...], dict[str, Any]]:
    manifest = _manifest(path)
    try:
        raw = (present(path) / TENSORS).read_bytes()
    except OSError as error:
        raise _damaged(path, f"{TENSORS}: {error.strerror}") from error
    _compare(path, manifest, hashlib.sha256(raw).hexdigest())
    return raw, _leaves_listed(path, manifest), manifest


def _fill(new: Path, leaves: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
    listed = [attrs.asdict(leaf) for leaf in describe(leaves)]
    digest = write_tensors(new / TENSORS, leaves)
    tensors = {"file": TENSORS, "sha256": digest}
    text = sealed({**content, "kind": KIND, "format": FORMAT, "tensors": tensors, "leaves": listed})
    with (new / MANIFEST).open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _leaves_listed(path: Path, manifest: Mapping[str, Any]) -> tuple[Leaf, ...]:
    try:
        return tuple(Leaf(str(x["path"]), str(x["dtype"]), tuple(map(int, x["shape"]))) for x in manifest["leaves"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"{MANIFEST} lists no leaves") from error


def _compare(path: Path, manifest: Mapping[str, Any], digest: str) -> None:
    if digest != manifest["tensors"].get("sha256"):
        raise _damaged(path, f"{TENSORS} does not have the digest that {MANIFEST} gives")


def _damaged(path: Path, how: str) -> CheckpointError:
    return refuse(f"{path}: damaged checkpoint: {how}")


def _is_intact(path: Path) -> bool:
    try:
        verify(path)
    except CheckpointError:
        return False
    return True


def _is_checkpoint(path: Path) -> bool:
    return not is_leftover(path) and ((path / MANIFEST).is_file() or (path / TENSORS).is_file())


def _headline(path: Path, manifest: Mapping[str, Any], template: TrainState, count: int) -> Issue:
    theirs, ours = manifest["learner"], learner_name(template)
    if theirs != ours:
        return Issue(problem=f"{path}: a checkpoint of another program", found=theirs, expected=ours)
    return Issue(problem=f"{path}: {count} leaves of the checkpoint do not fit this program")
