"""From callbacks' wishes to checkpoints on disk, with everything that the loop needs to go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ftrainer.functional.events import Save
from ftrainer.functional.state import Program, TrainState
from registry.spec import thaw

from .writer import BackgroundWriter

log = logging.getLogger("ftrainer.run")


class Saver:
    """Adds to a state what surrounds it, and hands both to the writer. A save that fails is told; the run goes on."""

    def __init__(self) -> None:
        self._writer = BackgroundWriter()

    def __enter__(self) -> Saver:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._writer.__exit__(kind, error, tb)

    def save(self, saves: Sequence[Save], state: TrainState, cursor: Mapping[str, Any], memories: Any) -> None:
        """Write one moment of the run under each of the names asked for; the bytes go to the disk meanwhile."""
        manifest = {**surroundings(state.program), "cursor": dict(cursor), "callbacks": memories}
        self._writer.save(saves, state, manifest)

    @property
    def is_busy(self) -> bool:
        """Whether a save is on its way to the disk, or was not asked after since."""
        return self._writer.is_busy

    def written(self, wait: bool = False) -> Iterator[Path]:
        """The saves that succeeded since the last call; failures are logged, earlier checkpoints stand."""
        for written in self._writer.flush() if wait else self._writer.poll():
            if written.path is None:
                log.warning("saving %s at step %d failed: %s", written.save.name, written.step, written.failure)
            else:
                yield written.path


def surroundings(program: Program) -> dict[str, Any]:
    """What a checkpoint says of the run besides its state and its place; `members` where it holds several."""
    said: dict[str, Any] = {
        "config": thaw(program.config),
        "run": {"name": program.run.name, "seed": program.run.seed, "backend": program.run.compile},
    }
    return said | ({"members": [thaw(each.values) for each in program.members]} if program.members else {})
