"""From a checkpoint to what others can use: a module's weights, a program, or one member of many as a plain run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from ftrainer.engine import checkpoint
from ftrainer.engine.extraction import take_out
from ftrainer.experiment import build
from ftrainer.functional import pytree
from ftrainer.functional.state import TrainState, with_hyper
from ftrainer.model.export import check_format, write
from registry import Registry, invalid


def export_checkpoint(path: Path, out: Path, member: int | None = None, *, registry: Registry | None = None) -> Path:
    """Write what a checkpoint holds.

    Args:
        path: the checkpoint.
        out: `.safetensors` or `.pt` for a state dict, `.pt2` for a program, with the weights that evaluation uses; with
            a member and no suffix, the directory of a plain checkpoint.
        member: which one of a replicated run's.
        registry: the built-in components unless given.

    Returns:
        `out`.

    Raises:
        ConfigError: the checkpoint is missing or damaged, there is no such member, or one has to be chosen; the format
            is unknown, or not what the run's learner can be written in.
    """
    if member is not None and not out.suffix:
        return take_out(path, member, out)
    check_format(out)
    with tempfile.TemporaryDirectory() as folder:
        plain = path if member is None else take_out(path, member, Path(folder) / "member")
        state, example = restored(plain, registry)
    return write_model(state, example, out)


def restored(path: Path, registry: Registry | None) -> tuple[TrainState, Any]:
    """A plain run's state, and one batch of its data.

    Raises:
        ConfigError: the checkpoint holds several runs, or its configuration cannot be built here.
    """
    manifest = checkpoint.load_manifest(path)
    if n_members := len(manifest.get("members", ())):
        raise invalid(f"{path} holds {n_members} members", hint=f"choose one: --member 0 to {n_members - 1}")
    template, data = build(manifest["config"], registry=registry)
    return checkpoint.read(path, template)[0], next(iter(data.batches("train", 0)))


def write_model(state: TrainState, example: Any, out: Path) -> Path:
    """What the learner's `to_module` makes of a state, in the format that the suffix names.

    Raises:
        ConfigError: the learner makes no module.
    """
    learner = with_hyper(state.program.learner, state.hyper)
    if missing := [name for name in ("to_module", "inputs") if not hasattr(learner, name)]:
        raise invalid(f"{type(learner).__name__} has no {missing[0]}: it makes no module", "learner")
    cpu = pytree.map(lambda leaf: leaf.cpu() if isinstance(leaf, Tensor) else leaf, example)
    return write(learner.to_module(state), out, learner.inputs(cpu))
