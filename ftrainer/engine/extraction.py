"""One member out of a checkpoint that holds many, as the checkpoint that it would have written alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftrainer.config.replicate import SEED, config_with
from ftrainer.functional.replicate import ACTIVE
from registry.issue import invalid
from registry.spec import freeze, thaw

from . import checkpoint
from .position import Clock
from .tensors import read_tensors
from .writer import GROUP

STACK_ONLY = (f"slots/{ACTIVE}", "hyper/")
"""Leaves that a stack has and a plain state has not."""
WRITTEN_ANEW = ("kind", "format", "tensors", "leaves", "members", GROUP)


def take_out(path: Path, index: int, out: Path) -> Path:
    """Write one member of a stack's checkpoint as a plain checkpoint, from which a plain run goes on.

    Its configuration is the member's: seed and values filled in, `replicate:` gone.

    Args:
        path: the checkpoint of a stack.
        index: the member, counted from 0.
        out: the new checkpoint's directory; one that is there is replaced.

    Returns:
        `out`.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        ConfigError: it holds a plain run, or no such member.
    """
    raw, leaves, manifest = checkpoint.load(path)
    values = values_of(path, manifest, index)
    tensors = {name: leaf[index] for name, leaf in read_tensors(raw, leaves).items() if not name.startswith(STACK_ONLY)}
    content = {name: value for name, value in manifest.items() if name not in WRITTEN_ANEW} | {
        "config": thaw(config_with(freeze(manifest["config"]), values)),
        "run": {**manifest["run"], "seed": values[SEED]},
        "cursor": cursor_of(manifest["cursor"], index, int(tensors["tick"])),
        "callbacks": manifest["callbacks"]["members"][index],
        "step": int(tensors["step"]),
        "tick": int(tensors["tick"]),
    }
    return checkpoint.write_leaves(out.parent, out.name, tensors, content)


def values_of(path: Path, manifest: Mapping[str, Any], index: int) -> dict[str, Any]:
    """What sets a member apart, by config path.

    Raises:
        ConfigError: the checkpoint holds a plain run, or no such member.
    """
    members = manifest.get("members")
    if not members:
        raise invalid(f"{path} holds a plain run, of which nothing can be taken out")
    if not 0 <= index < len(members):
        expected = f"a number from 0 to {len(members) - 1}"
        raise invalid(f"{path} has no such member", found=str(index), expected=expected)
    return dict(members[index])


def cursor_of(cursor: Mapping[str, Any], index: int, tick: int) -> dict[str, Any]:
    """Where a member stands that goes on alone: at its own tick, without a layout, and not ended."""
    roster = {name: [counts[index]] for name, counts in cursor["roster"].items() if name != "ended"}
    kept = {name: value for name, value in cursor.items() if name != "layout"}
    clock = Clock(**cursor["clock"])
    place = {"step": clock.attempts(tick), "tick": tick, "epoch": clock.epoch(tick), "over": None}
    return {**kept, **place, "roster": {**roster, "ended": []}}
