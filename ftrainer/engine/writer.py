"""Saving beside the loop: the loop pays for a copy of the state in memory, a thread does the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.functional.events import Save
from ftrainer.functional.state import TrainState

from . import checkpoint
from .tensors import CheckpointError, leaves_of

GROUP = "group"
"""The manifest's entry for the saves of one moment, this checkpoint's and its siblings'."""


@attrs.frozen(kw_only=True)
class Written:
    """How a save ended.

    Attributes:
        save: what was asked for.
        path: the checkpoint, or None where it could not be written.
        failure: why not; earlier checkpoints stand.
        step: the manifest's `cursor["step"]` if it has one, else applied updates.
    """

    save: Save
    path: Path | None = None
    failure: str | None = None
    step: int = 0


class BackgroundWriter:
    """One thread that writes checkpoints from snapshots. A context manager: leaving it waits for the disk.

    A snapshot's buffers are used again by the next, so memory for one copy of the state is all it takes; a save that
    finds the previous one still on its way to the disk waits for it.

    Attributes:
        failure: why the newest state on its way to the disk did not arrive there under any name; None where it did.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._buffers: dict[str, Tensor] = {}
        self._pending: Future[list[Written]] | None = None
        self._done: list[Written] = []
        self.failure: str | None = None

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._pool.shutdown(wait=True)

    def save(self, saves: Sequence[Save], state: TrainState, manifest: Mapping[str, Any]) -> None:
        """Snapshot a state, so that the caller may overwrite it, and write it under each of the names.

        Args:
            saves: all that is asked for at this moment; the bytes are written once.
            state: on any device.
            manifest: as for `checkpoint.write`.

        Raises:
            CheckpointError: a leaf or a manifest entry that a checkpoint cannot hold.
        """
        content = checkpoint.complete(state, {**manifest, GROUP: [attrs.asdict(save) for save in saves]})
        self._settle()
        snapshot = self._snapshot(leaves_of(state))
        self._pending = self._pool.submit(_write_all, tuple(saves), snapshot, content)

    @property
    def is_busy(self) -> bool:
        """Whether `poll` has, or will have, something to tell."""
        return self._pending is not None or bool(self._done)

    def poll(self) -> list[Written]:
        """What ended since the last call, without waiting."""
        if self._pending is not None and self._pending.done():
            self._settle()
        done, self._done = self._done, []
        return done

    def flush(self) -> list[Written]:
        """The same, after waiting for the disk."""
        self._settle()
        return self.poll()

    def _settle(self) -> None:
        if self._pending is not None:
            done, self._pending = self._pending.result(), None
            self._done += done
            self.failure = None if any(written.path for written in done) else done[-1].failure

    def _snapshot(self, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._buffers = {path: _like(self._buffers.get(path), leaf) for path, leaf in leaves.items()}
        for path, leaf in leaves.items():
            self._buffers[path].copy_(leaf.detach(), non_blocking=True)
        for device in {leaf.device for leaf in leaves.values() if leaf.is_cuda}:
            torch.cuda.synchronize(device)
        return self._buffers


def finish_group(path: Path, manifest: Mapping[str, Any]) -> tuple[Path, ...]:
    """Do what a crash kept the writer from: give a checkpoint its siblings' names and drop what they replace.

    Args:
        path: an intact checkpoint. One that was moved or copied since it was written has no siblings.
        manifest: its manifest.

    Returns:
        The siblings that were missing or older.

    Raises:
        OSError: the disk is full, or may not be written to.
    """
    saves = [Save(**{**save, "drop": tuple(save["drop"])}) for save in manifest.get(GROUP, ())]
    places = [Path(save.directory) / save.name for save in saves]
    if path.resolve() not in [place.resolve() for place in places]:
        return ()
    made = []
    for save, place in zip(saves, places, strict=True):
        if _written_at(place) < manifest["written_at"]:
            made.append(checkpoint.duplicate(path, place.parent, place.name))
        checkpoint.prune(place.parent, save.drop)
    return tuple(made)


def _written_at(path: Path) -> float:
    try:
        return float(checkpoint.load_manifest(path)["written_at"])
    except CheckpointError:
        return 0.0


def _like(buffer: Tensor | None, leaf: Tensor) -> Tensor:
    if buffer is not None and buffer.shape == leaf.shape and buffer.dtype == leaf.dtype:
        return buffer
    return torch.empty(leaf.shape, dtype=leaf.dtype, device="cpu", pin_memory=leaf.is_cuda)


def _write_all(saves: Sequence[Save], leaves: Mapping[str, Tensor], content: Mapping[str, Any]) -> list[Written]:
    done: list[Written] = []
    step = int(content.get("cursor", {}).get("step", content["step"]))
    for save in saves:
        first = next((written.path for written in done if written.path is not None), None)
        try:
            path = _write_one(save, first, leaves, content)
        except (OSError, CheckpointError) as error:
            done.append(Written(save=save, failure=str(error), step=step))
        else:
            done.append(Written(save=save, path=path, step=step))
    return done


def _write_one(save: Save, first: Path | None, leaves: Mapping[str, Tensor], content: Mapping[str, Any]) -> Path:
    directory = Path(save.directory)
    if first is not None:
        path = checkpoint.duplicate(first, directory, save.name)
    else:
        path = checkpoint.write_leaves(directory, save.name, leaves, content)
    checkpoint.prune(directory, save.drop, trusted=path)
    return path
