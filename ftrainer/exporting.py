"""From a checkpoint to what others can use: a module's weights, a program, or one member of many as a plain run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
from torch import Tensor

from ftrainer.config.permissions import permitted
from ftrainer.engine import checkpoint
from ftrainer.engine.extraction import take_out
from ftrainer.experiment import build
from ftrainer.functional import pytree
from ftrainer.functional.phases import Track
from ftrainer.functional.state import TrainState, with_hyper
from ftrainer.model.export import check_format, write, write_tensors
from ftrainer.revisit.revive import find_checkpoint
from registry import Registry, invalid, nearest

Weights = Literal["ema", "trained"]
AVERAGE = "ema"
"""The slot in which learners keep an average of their weights."""


def export_checkpoint(
    path: Path,
    out: Path,
    member: int | None = None,
    *,
    weights: Weights | None = None,
    network: str | None = None,
    overrides: Sequence[str] = (),
    registry: Registry | None = None,
) -> Path:
    """Write what a checkpoint holds.

    Args:
        path: the checkpoint, or the directory of a run, whose newest intact one is taken.
        out: `.safetensors` or `.pt` for a state dict, `.pt2` for a program; with a member and no suffix, the directory
            of a plain checkpoint.
        member: which one of a replicated run's.
        weights: `ema` for the average that the learner keeps, `trained` for the weights that the optimizer moves;
            None for those that evaluation uses.
        network: the bare tensors of one of the learner's networks; None for the module that the learner makes of
            them, its normaliser inside.
        overrides: `key.path=value`, laid over the checkpoint's configuration. Modules outside `extensions` and
            `_target_` need an override of `settings`, since a checkpoint may be a stranger's.
        registry: the built-in components unless given.

    Returns:
        `out`.

    Raises:
        ConfigError: the checkpoint is missing or damaged, there is no such member, or one has to be chosen; the format
            is unknown, or not what the run's learner can be written in; there is no average, or no such network.
    """
    path = find_checkpoint(path)
    if member is not None and not out.suffix:
        if weights or network:
            raise invalid("a plain checkpoint holds everything: no weights or network can be chosen", "out")
        return take_out(path, member, out)
    check_format(out)
    with tempfile.TemporaryDirectory() as folder:
        plain = path if member is None else take_out(path, member, Path(folder) / "member")
        state, example = restored(plain, overrides, registry)
    state = with_weights(state, weights)
    return write_model(state, example, out) if network is None else write_network(state, network, out)


def with_weights(state: TrainState, weights: Weights | None) -> TrainState:
    """The state whose evaluation weights are those asked for.

    Raises:
        ConfigError: the average is asked for, and the learner keeps none.
    """
    source = averaged(state)
    if weights == "ema" and source is None:
        hint = "train with `learner.ema_decay`, or export --weights trained"
        raise invalid(
            "keeps no average of its weights", "learner", found=type(state.program.learner).__name__, hint=hint
        )
    if weights != "trained" or source is None:
        return state
    return attrs.evolve(state, slots={**state.slots, AVERAGE: state.params[source]})


def restored(path: Path, overrides: Sequence[str], registry: Registry | None) -> tuple[TrainState, Any]:
    """A plain run's state, and one batch of its data.

    Raises:
        ConfigError: the checkpoint holds several runs, or its configuration cannot be built here.
    """
    manifest = checkpoint.load_manifest(path)
    if n_members := len(manifest.get("members", ())):
        raise invalid(f"{path} holds {n_members} members", hint=f"choose one: --member 0 to {n_members - 1}")
    template, data = build(permitted(manifest["config"]), overrides, registry=registry)
    return checkpoint.read(path, template)[0], next(iter(data.batches("train", 0)))


def write_model(state: TrainState, example: Any, out: Path) -> Path:
    """What the learner's `to_module` makes of a state, in the format that the suffix names.

    Raises:
        ConfigError: the learner makes no module.
    """
    learner = with_hyper(state.program.learner, state.hyper)
    if missing := [name for name in ("to_module", "inputs") if not hasattr(learner, name)]:
        hint = f"choose one of its networks: --network {' or '.join(state.params)}"
        raise invalid(f"{type(learner).__name__} has no {missing[0]}: it makes no module", "learner", hint=hint)
    cpu = pytree.map(lambda leaf: leaf.cpu() if isinstance(leaf, Tensor) else leaf, example)
    return write(learner.to_module(state), out, learner.inputs(cpu))


def write_network(state: TrainState, network: str, out: Path) -> Path:
    """The tensors of one of the learner's networks, under the names that the network itself gives them.

    Raises:
        ConfigError: there is no such network, or a program is asked for.
    """
    if network not in state.params:
        found, near = repr(network), nearest(network, state.params)
        raise invalid("no such network", "network", found=found, expected=", ".join(state.params), nearest=near)
    if out.suffix == ".pt2":
        hint = "write .safetensors or .pt, or leave the network out for the learner's module"
        raise invalid("a network alone is tensors, no program", "out", found=repr(out.suffix), hint=hint)
    params = state.slots.get(AVERAGE, state.params[network]) if network == averaged(state) else state.params[network]
    tensors = {**params, **state.buffers.get(network, {})}
    return write_tensors({name: tensor.detach().cpu() for name, tensor in tensors.items()}, out)


def averaged(state: TrainState) -> str | None:
    """The network of which the learner keeps an average."""
    tracks: Iterable[Track] = getattr(state.program.learner, "tracks", tuple)()
    return next((track.source for track in tracks if track.slot == AVERAGE), None)
