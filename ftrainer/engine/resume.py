"""Where a run begins: at step zero, or where a checkpoint left it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from ftrainer.components.base import Data
from ftrainer.functional.state import Program, TrainState
from registry.issue import invalid
from registry.spec import replace

from . import checkpoint
from .replicas import same_members
from .writer import finish_group

log = logging.getLogger("ftrainer.run")
AUTO = "auto"


@attrs.frozen(kw_only=True)
class Beginning:
    """What the loop starts from.

    Attributes:
        state: the run as a value.
        memories: what the callbacks remember; None for fresh ones.
        cursor: `step`, `tick`, `epoch` and `elapsed` of the checkpoint; empty at step zero.
    """

    state: TrainState
    memories: Sequence[Any] | None = None
    cursor: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def elapsed(self) -> float:
        """Seconds that the run took before."""
        return float(self.cursor.get("elapsed", 0.0))


def restore(
    state: TrainState, data: Data, resume: str | None, directories: Iterable[Path], keep_backend: bool = False
) -> Beginning:
    """Find the checkpoint to go on from, and read it.

    Args:
        state: step zero of the same program, as the template.
        data: what the run trains on.
        resume: None to start afresh, `auto` for the newest intact checkpoint, or the path of one.
        directories: where `auto` looks.
        keep_backend: compute as the checkpoint's run did, whatever the program says.

    Raises:
        ConfigError: the path holds no checkpoint, the checkpoint does not fit the program, or the data's order
            cannot be had again.
    """
    if resume is None:
        return Beginning(state=state)
    path = newest(directories) if resume == AUTO else Path(resume)
    if path is None:
        log.info("no checkpoint to resume from: the run starts afresh")
        return Beginning(state=state)
    if data.exact_resume is not None:
        raise invalid(f"cannot resume: {data.exact_resume}", "run", "resume_from", found=str(path))
    same_members(checkpoint.load_manifest(path).get("members"), state.program)
    restored, manifest = checkpoint.read(path, state)
    if keep_backend:
        run = replace(restored.program.run, compile=manifest["run"]["backend"])
        restored = attrs.evolve(restored, program=restored.program.but(run=run))
    finish_saving(path, manifest)
    for change in checkpoint.drift(manifest):
        log.warning("resuming under another environment, so results may differ in the last bits: %s", change)
    log.info("resuming %s at step %d from %s", state.program.run.name, manifest["cursor"]["step"], path)
    return Beginning(state=restored, memories=manifest["callbacks"], cursor=manifest["cursor"])


def finish_saving(path: Path, manifest: Mapping[str, Any]) -> None:
    """Make the checkpoints that should have been written beside this one, had the run not been killed."""
    try:
        made = finish_group(path, manifest)
    except OSError as error:
        log.warning("what was to be saved beside %s could not be: %s", path, error)
    else:
        for place in made:
            log.info("%s is saved again, from %s", place, path)


def newest(directories: Iterable[Path]) -> Path | None:
    """The newest intact checkpoint; damaged ones are passed over and named."""
    path, skipped = checkpoint.latest(*dict.fromkeys(directories))
    for issue in skipped:
        log.warning("%s", issue)
    return path


def save_directories(program: Program) -> tuple[Path, ...]:
    """Where the program's callbacks save."""
    return tuple(Path(c.save_dir) for c in program.callbacks if hasattr(c, "save_dir"))
