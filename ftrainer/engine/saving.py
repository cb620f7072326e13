"""From a callback's wish to a checkpoint on disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from ftrainer.functional.events import Save
from ftrainer.functional.state import Program, TrainState
from registry.spec import thaw

from . import checkpoint
from .reactions import Reactions


class Saver:
    """Writes checkpoints with everything that the loop needs to go on."""

    def __init__(self, program: Program, reactions: Reactions):
        self._program, self._reactions = program, reactions

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def __call__(self, save: Save, state: TrainState, **cursor: Any) -> Path:
        """Write one checkpoint and remove those it replaces."""
        manifest = {
            "cursor": cursor,
            "callbacks": self._reactions.memories,
            "config": thaw(self._program.config),
            "run": {"backend": self._program.run.compile, "seed": self._program.run.seed},
        }
        path = checkpoint.write(Path(save.directory), save.name, state, manifest)
        for name in save.drop:
            shutil.rmtree(Path(save.directory) / name, ignore_errors=True)
        return path
