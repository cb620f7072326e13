"""From callbacks' wishes to checkpoints on disk, with everything that the loop needs to go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from ftrainer.functional import pytree
from ftrainer.functional.events import Save
from ftrainer.functional.state import Program, TrainState
from registry.spec import thaw

from .writer import BackgroundWriter

log = logging.getLogger("ftrainer.run")


class Saver:
    """Adds to a state what surrounds it, and hands both to the writer. A save that fails is told; the run goes on."""

    def __init__(self) -> None:
        self._writer = BackgroundWriter()
        self._refused: str | None = None

    def __enter__(self) -> Saver:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._writer.__exit__(kind, error, tb)

    def save(self, saves: Sequence[Save], state: TrainState, around: Mapping[str, Any]) -> None:
        """Write one moment of the run under each of the names asked for; the bytes go to the disk meanwhile.

        A plain run whose parameters are not finite is not saved, so that earlier checkpoints stand.

        Args:
            saves: what is asked for.
            state: of the run, or of one member of it.
            around: what else the manifest shall hold.
        """
        spoilt = None if state.program.members else not_finite(state)
        self._refused = f"{spoilt} is not finite" if spoilt else None
        if spoilt:
            names = ", ".join(save.name for save in saves)
            log.warning("%s is not saved, since %s is not finite; earlier checkpoints stand", names, spoilt)
        else:
            self._writer.save(saves, state, {**surroundings(state.program), **around})

    @property
    def is_busy(self) -> bool:
        """Whether a save is on its way to the disk, or was not asked after since."""
        return self._writer.is_busy

    @property
    def failure(self) -> str | None:
        """Why the newest state is under none of the names asked for it; None where it is. For after a wait."""
        return self._refused or self._writer.failure

    def written(self, wait: bool = False) -> Iterator[Path]:
        """The saves that succeeded since the last call; failures are logged, earlier checkpoints stand."""
        for written in self._writer.flush() if wait else self._writer.poll():
            if written.path is None:
                log.warning("saving %s at step %d failed: %s", written.save.name, written.step, written.failure)
            else:
                yield written.path


def not_finite(state: TrainState) -> str | None:
    """The first parameter that holds a number that is not finite; None where all are finite. Waits for the device."""
    named = list(zip(pytree.paths(state.params), pytree.leaves(state.params), strict=True))
    sums = [leaf.detach().sum(dtype=torch.complex128 if leaf.is_complex() else torch.float64) for _, leaf in named]
    if not sums or bool(torch.stack(sums).isfinite().all()):
        return None
    return next((f"params/{path}" for path, leaf in named if not leaf.isfinite().all()), None)


def surroundings(program: Program) -> dict[str, Any]:
    """What a checkpoint says of the run besides its state and its place; `members` where it holds several."""
    said: dict[str, Any] = {
        "config": thaw(program.config),
        "run": {"name": program.run.name, "seed": program.run.seed, "backend": program.run.compile},
    }
    return said | ({"members": [thaw(each.values) for each in program.members]} if program.members else {})
