"""From a checkpoint back to a program, its state and its data: the manifest holds the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from ftrainer.components.base import Data
from ftrainer.config import resolve_config
from ftrainer.config.permissions import permitted
from ftrainer.engine import checkpoint
from ftrainer.engine.placement import present
from ftrainer.engine.replicas import same_members
from ftrainer.engine.resume import newest
from ftrainer.engine.rundir import CHECKPOINTS, CONFIG, is_run
from ftrainer.engine.tensors import CheckpointError
from ftrainer.experiment import plan, start
from ftrainer.functional.replicate import member
from ftrainer.functional.state import Program, TrainState
from registry import Registry, invalid

Overrides = Mapping[str, Any] | Sequence[str]


@attrs.frozen(kw_only=True)
class Revived:
    """A checkpoint at work again.

    Attributes:
        path: the checkpoint.
        manifest: what it says of itself.
        state: the run at its moment, on the run's device.
        data: what the run trains on.
    """

    path: Path
    manifest: Mapping[str, Any]
    state: TrainState
    data: Data

    @property
    def program(self) -> Program:
        """What the run is made of."""
        return self.state.program


def load(
    place: str | Path, overrides: Overrides | None = None, *, registry: Registry | None = None
) -> tuple[TrainState, Data]:
    """A trained state and its data, as `build` gives them at step zero: the checkpoint holds its configuration.

    `fit` trains them on from the state's step to the configuration's end; callbacks begin anew, unless it is told
    `resume=` the checkpoint too.

    Args:
        place: a checkpoint, or the directory of a run, whose newest intact one is taken.
        overrides: values by dotted path, `{"trainer.max_steps": 400}`, or `key.path=value` texts. Modules outside
            `extensions` and `_target_` need one of `settings`, since a checkpoint may be a stranger's.
        registry: what `_type_` may name, besides what the configuration imports; the built-in components unless given.

    Returns:
        The state at the checkpoint's moment, on the run's device, and the data; what `fit`, `evaluate`, `predict`,
        `to_module` and `member` take.

    Raises:
        ConfigError: there is no checkpoint, or a damaged one; its configuration cannot be built, for instance because
            a plugin may not be imported; or its tensors do not fit what was built.

    >>> load("nowhere")
    Traceback (most recent call last):
    registry.issue.ConfigError: nowhere: neither the directory of a run nor a checkpoint
    """
    found = revive(Path(place), overrides or (), registry)
    return found.state, found.data


def revive(place: Path, overrides: Overrides = (), registry: Registry | None = None) -> Revived:
    """Build what a checkpoint's configuration describes, and restore the checkpoint into it.

    Args:
        place: a checkpoint, or the directory of a run, whose newest intact one is taken.
        overrides: as for `build`, laid over the checkpoint's configuration. Modules outside `extensions` and `_target_`
            need an override of `settings`, since a checkpoint may be a stranger's.
        registry: what `_type_` may name, besides what the configuration imports; the built-in components unless given.

    Raises:
        ConfigError: there is no checkpoint, or its configuration cannot be built, or it does not fit what was built.
    """
    path = find_checkpoint(place)
    try:
        return revived(path, overrides, registry)
    except CheckpointError:
        if place == path or present(path).exists():
            raise
    return revive(place, overrides, registry)  # a live run pruned it meanwhile


def revived(path: Path, overrides: Overrides = (), registry: Registry | None = None) -> Revived:
    """`revive` for the path of a checkpoint."""
    manifest = checkpoint.load_manifest(path)
    experiment = plan(permitted(manifest["config"]), overrides, registry=registry)
    state, data = start(experiment, manifest["cursor"])
    same_members(manifest.get("members"), state.program)
    restored, manifest = checkpoint.read(path, state)
    return Revived(path=path, manifest=manifest, state=restored, data=data)


def find_checkpoint(place: Path) -> Path:
    """A checkpoint itself, or the newest intact one of a run's directory.

    Raises:
        ConfigError: there is neither.
    """
    if not is_run(place):
        if not any((present(place) / name).is_file() for name in (checkpoint.MANIFEST, checkpoint.TENSORS)):
            raise invalid(f"{place}: neither the directory of a run nor a checkpoint")
        return place
    found = newest(directories_of(place))
    if found is None:
        raise invalid(f"{place}: no intact checkpoint in this run's directory")
    return found


def stored(place: Path) -> list[Path]:
    """All checkpoints of a run's directory; the checkpoint itself where it is one."""
    if not is_run(place):
        return [place]
    return [path for directory in directories_of(place) for path in checkpoint.stored(directory)]


def directories_of(run: Path) -> list[Path]:
    """Where a run saves: in its own directory, and where its callbacks say."""
    callbacks = resolve_config(run / CONFIG).data.get("callbacks") or ()
    chosen = [Path(callback["save_dir"]) for callback in callbacks if "save_dir" in callback]
    return list(dict.fromkeys([run / CHECKPOINTS, *chosen]))


def plain(state: TrainState, index: int | None) -> TrainState:
    """The state of a plain run, or of one member of a stack.

    Raises:
        ConfigError: a stack, and no member or one that is not there; a plain run, and a member.
    """
    n = len(state.program.members)
    if index is None and not n:
        return state
    if index is None or not 0 <= index < n:
        expected = f"--member 0 to {n - 1}" if n else "no --member"
        raise invalid("one run of a checkpoint is wanted", found=f"member {index}", expected=expected)
    return member(state, index)
