"""Where a run begins: at step zero, or where a checkpoint left it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from ftrainer.components.base import Data
from ftrainer.functional.state import Program, TrainState
from registry.issue import ConfigPath, invalid, near_files
from registry.spec import replace

from . import checkpoint
from .environment import drift
from .placement import present
from .position import run_clock
from .reactions import NAMES, reacting, title
from .replicas import same_members
from .rundir import CHECKPOINTS
from .writer import finish_group

log = logging.getLogger("ftrainer.run")
AUTO = "auto"


@attrs.frozen(kw_only=True)
class Beginning:
    """What the loop starts from.

    Attributes:
        state: the run as a value.
        memories: what the callbacks remember; None for fresh ones.
        cursor: the checkpoint's: `step`, `tick`, `epoch`, `elapsed`, `clock` and more; empty at step zero.
        origin: the checkpoint; None at step zero.
    """

    state: TrainState
    memories: Any = None
    cursor: Mapping[str, Any] = attrs.field(factory=dict)
    origin: Path | None = None

    @property
    def elapsed(self) -> float:
        """Seconds that the run took before."""
        return float(self.cursor.get("elapsed", 0.0))


def locate(resume: str | None, directories: Iterable[Path], named_by: ConfigPath = ()) -> Path | None:
    """The checkpoint to go on from: the newest intact one for `auto`, else that at the path; None to start afresh.

    Args:
        resume: `auto`, a path, or None.
        directories: where `auto` looks.
        named_by: the config path of `resume`, for errors.

    Raises:
        ConfigError: there is nothing at the path.
    """
    if resume is None:
        return None
    if resume != AUTO:
        if not present(Path(resume)).exists():
            raise invalid("no checkpoint there", *named_by, found=resume, nearest=near_files(resume))
        return Path(resume)
    path = newest(directories)
    if path is None:
        log.info("no checkpoint to resume from: the run starts afresh")
    return path


def cursor_at(path: Path | None) -> Mapping[str, Any]:
    """Where the run stood that a checkpoint holds; empty for None.

    Raises:
        ConfigError: the path holds no checkpoint, or a damaged one.
    """
    return {} if path is None else checkpoint.load_manifest(path)["cursor"]


def restore(state: TrainState, data: Data, path: Path | None, keep_backend: bool = False) -> Beginning:
    """Read the checkpoint to go on from.

    What is no tensor of the state may have changed since it was written: the length of the run and of its schedules,
    learning rates, the batches, loggers, callbacks, evaluators, names and directories. Other batches begin the epoch
    anew. A callback that is still there, and still watches the same figure, keeps its memory.

    Args:
        state: step zero of the program that wants it, as the template.
        data: what the run trains on.
        path: the checkpoint; None to start afresh.
        keep_backend: compute as the checkpoint's run did, whatever the program says.

    Raises:
        ConfigError: the path holds no checkpoint, the checkpoint does not fit the program, or the data's order
            cannot be had again.
    """
    if path is None:
        return Beginning(state=state)
    if data.exact_resume is not None:
        raise invalid(f"cannot resume: {data.exact_resume}", "run", "resume_from", found=str(path))
    same_members(checkpoint.load_manifest(path).get("members"), state.program)
    restored, manifest = checkpoint.read(path, state)
    if keep_backend:
        run = replace(restored.program.run, compile=manifest["run"]["backend"])
        restored = attrs.evolve(restored, program=restored.program.but(run=run))
    finish_saving(path, manifest)
    for change in drift(manifest):
        log.warning("resuming under another environment, so results may differ in the last bits: %s", change)
    log.info("resuming %s at step %d from %s", state.program.run.name, manifest["cursor"]["step"], path)
    names = [title(callback) for _, callback in reacting(state.program)]
    memories = handed_on(manifest["callbacks"], manifest[NAMES], names)
    return Beginning(state=restored, memories=memories, cursor=manifest["cursor"], origin=path)


def handed_on(memories: Any, saved: Sequence[str], wanted: Sequence[str]) -> Any:
    """A checkpoint's memories for callbacks that may be others now, by name; None for one that has no memory yet.

    Args:
        memories: one for each of `saved`, or as a stack of runs keeps them.
        saved: the names of the callbacks that had them.
        wanted: the names of those that want them.

    >>> handed_on([{"bad": 1}, {"best": 2}], ["Patience", "Best"], ["Best", "New"])
    [{'best': 2}, None]
    """
    if isinstance(memories, Mapping):
        members = [handed_on(own, saved, wanted) for own in memories["members"]]
        return {"all": handed_on(memories["all"], saved, wanted), "members": members}
    left, found = list(zip(saved, memories, strict=True)), []
    for name in wanted:
        at = next((index for index, (other, _) in enumerate(left) if other == name), None)
        found.append(None if at is None else left.pop(at)[1])
    return found


def why_finished(begin: Beginning, data: Data, resume: str | None) -> str | None:
    """Why a run that was resumed has nothing left to do, if it has not."""
    if not begin.cursor:
        return None
    trainer, done = begin.state.program.trainer, begin.cursor["step"]
    if done >= trainer.total_steps(run_clock(begin.state.program, data, begin.cursor).attempts_by):
        return f"all of its {done} steps are done"
    if trainer.max_time is not None and begin.elapsed >= 60 * trainer.max_time:
        return f"its {trainer.max_time:g} minutes are over"
    over = begin.cursor.get("over")
    return f"{over} (--resume PATH goes on all the same)" if over and resume == AUTO else None


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


def checkpoint_directories(program: Program) -> tuple[Path, ...]:
    """Where a run of the program saves: in its own directory, and where its callbacks say."""
    chosen = (Path(c.save_dir) for c in program.callbacks if hasattr(c, "save_dir"))
    return tuple(dict.fromkeys([Path(program.run.out_dir) / CHECKPOINTS, *chosen]))
