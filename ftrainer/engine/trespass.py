"""A run that claims no directory, as one begun from Python, keeps out of the directory of one that did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from ftrainer.functional import pytree
from ftrainer.functional.state import Program, TrainState
from registry.issue import dotted, invalid

from . import checkpoint
from .resume import checkpoint_directories
from .rundir import is_run
from .tensors import CheckpointError


def keep_out(state: TrainState, origin: Path | None = None) -> None:
    """See that training this state would not write into the directory of a run that it has nothing to do with.

    Args:
        state: where training begins.
        origin: the checkpoint that it was or will be restored from, if there is one.

    Raises:
        ConfigError: a callback or logger would write below `run.out_dir`, a run of the command line or of
            `run_experiment` lies there, and the state is from none of its checkpoints.
    """
    out_dir = Path(state.program.run.out_dir)
    if not is_run(out_dir) or not (writing := list(writers(state.program))):
        return
    if belongs(origin, out_dir) if origin is not None else is_saved(state, out_dir):
        return
    raise invalid("a run of the command line or of `run_experiment` lies here, and this one would write over it",
                  "run", "out_dir", found=f"{out_dir}, where {', '.join(writing)} would write",
                  hint="another run.name keeps both; `ftrainer train CONFIG --resume auto`, or `fit(…, "
                  'resume="auto")`, goes on with the one that lies here')  # fmt: skip


def writers(program: Program) -> Iterator[str]:
    """The callbacks and loggers that write below `run.out_dir`, by config path."""
    out_dir = Path(program.run.out_dir)
    for index, callback in enumerate(program.callbacks):
        if hasattr(callback, "save_dir") and is_below(Path(callback.save_dir), out_dir):
            yield dotted(("callbacks", index))
    for index, logger in enumerate(program.loggers):
        if getattr(logger, "writes", True) and is_below(out_dir / getattr(logger, "path", ""), out_dir):
            yield dotted(("loggers", index))


def belongs(path: Path, out_dir: Path) -> bool:
    """Whether a checkpoint is of the run in a directory: it lies there, or was saved elsewhere by that run.

    Raises:
        CheckpointError: it is damaged.
    """
    if is_below(path, out_dir):
        return True
    said = checkpoint.load_manifest(path).get("config", {}).get("run", {}).get("out_dir")
    return said is not None and Path(said).resolve() == out_dir.resolve()


def is_saved(state: TrainState, out_dir: Path) -> bool:
    """Whether a checkpoint of the run in a directory holds this very state, as after `load`."""
    if not int(state.tick.max()):
        return False
    found = [path for directory in checkpoint_directories(state.program) for path in checkpoint.stored(directory)]
    return any(holds(path, state, out_dir) for path in found)


def holds(path: Path, state: TrainState, out_dir: Path) -> bool:
    """Whether a checkpoint of a run holds a state, to the bit; counters are compared before tensors are read."""
    try:
        manifest = checkpoint.load_manifest(path)
        if not belongs(path, out_dir):
            return False
        if (manifest["step"], manifest["tick"]) != (int(state.step.max()), int(state.tick.max())):
            return False
        restored, _ = checkpoint.read(path, state)
    except CheckpointError:
        return False
    return all(map(torch.equal, pytree.leaves(restored), pytree.leaves(state)))


def is_below(path: Path, directory: Path) -> bool:
    """Whether a path is a directory or lies in it."""
    return path.resolve().is_relative_to(directory.resolve())
