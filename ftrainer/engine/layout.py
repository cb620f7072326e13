"""How the members of a stack share calls: all in one, in chunks, or one after another; by memory and by the clock."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import torch

from ftrainer.deps.make_fx import wants_value
from ftrainer.functional.graph.capture import TraceError
from ftrainer.functional.graph.liveness import peak_bytes, tree_bytes
from ftrainer.functional.replicate import member, share
from ftrainer.functional.state import TrainState
from registry.issue import invalid

log = logging.getLogger("ftrainer.run")

USABLE = 0.8
"""The share of free memory that members may take."""
BLIND_FACTOR = 4
"""Bytes of a step for each byte of state, where the step cannot be traced to be asked."""
WARM_UP = 3
"""Steps before anything is timed: two compile, where a phase rests every other step; the third records CUDA graphs."""
ROUND_STEPS, ROUND_SECONDS = 8, 0.05
"""How long a strategy runs before it is the other's turn, whichever comes first."""
LEAST_ROUNDS, CLEARLY = 3, 1.15
"""Rounds of any trial, and how many times as fast is clear: a busy machine seldom takes more from one of two equals."""
ENOUGH, LIMIT = (5, 0.5), (15, 1.5)
"""Rounds or seconds, whichever come first, after which a trial ends: where one is clearly the faster, and else."""

Clocked = Callable[[str, int], float]
"""Runs some steps of all members by a strategy and says how many seconds one took."""


@attrs.frozen(kw_only=True)
class Layout:
    """Which members one call moves.

    Attributes:
        strategy: `vmap` moves up to `chunk` members with one call, `loop` one.
        chunk: members in a call.
        why: what decided, as JSON data: bytes of the estimate, seconds of the trial.
    """

    strategy: Literal["vmap", "loop"] = "vmap"
    chunk: int
    why: Mapping[str, Any] = attrs.field(factory=dict)

    def lanes(self, n_members: int) -> list[int | slice]:
        """Places on the axis of members, one for each call.

        >>> Layout(chunk=2).lanes(3), Layout(strategy="loop", chunk=1).lanes(2)
        ([slice(0, 2, None), slice(2, 3, None)], [0, 1])
        """
        if self.strategy == "loop":
            return list(range(n_members))
        return [slice(at, min(at + self.chunk, n_members)) for at in range(0, n_members, self.chunk)]


def decide(state: TrainState, batch: Any, clocked: Callable[[int], Clocked]) -> Layout:
    """The layout that the settings of `replicate:` ask for; what they leave open is estimated and timed.

    Args:
        state: a stack; not changed.
        batch: one of its batches.
        clocked: makes the clock of a trial with chunks of some size.
    """
    settings, n_members = state.program.replicate, len(state.program.members)
    if settings.strategy == "loop" or n_members == 1:
        return Layout(strategy="loop", chunk=1)
    chunk, why = chunk_size(state, batch) if settings.chunk == "auto" else (min(settings.chunk, n_members), {})
    if settings.strategy == "vmap":
        return Layout(strategy="vmap", chunk=chunk, why=why)
    try:
        seconds = trial(clocked(chunk))
    except RuntimeError as error:
        if not isinstance(error, TraceError) and not wants_value(error):
            raise
        reason = str(error).splitlines()[0]
        log.info("replicate.strategy: loop, since members cannot be moved by one call: %s", reason)
        return Layout(strategy="loop", chunk=1, why={**why, "vmap_refused": reason})
    strategy = min(seconds, key=lambda name: seconds[name])
    log.info("replicate.strategy: %s, since a step of all members took %s", strategy,
             ", ".join(f"{1e3 * took:.3g} ms by {name}" for name, took in seconds.items()))  # fmt: skip
    why = {**why, "seconds_per_step": seconds}
    return Layout(strategy="loop", chunk=1, why=why) if strategy == "loop" else Layout(chunk=chunk, why=why)


def trial(clocked: Clocked) -> dict[str, float]:
    """Seconds of a step of all members by each strategy, the least of several rounds in which both take their turn.

    What else a machine does makes rounds longer and never shorter, so the least is nearest to the truth.
    """
    steps: dict[str, int] = {}
    for name in ("vmap", "loop"):
        clocked(name, WARM_UP)
        steps[name] = max(1, min(ROUND_STEPS, round(ROUND_SECONDS / max(clocked(name, 1), 1e-9))))
    least, n_rounds, start = dict.fromkeys(steps, math.inf), 0, time.perf_counter()
    while n_rounds < LEAST_ROUNDS or is_open(least, n_rounds, time.perf_counter() - start):
        for name, n in steps.items():
            clocked(name, 1)  # what the other left in the caches is not its fault
            least[name] = min(least[name], clocked(name, n))
        n_rounds += 1
    return least


def is_open(least: Mapping[str, float], n_rounds: int, seconds: float) -> bool:
    """Whether a trial goes on.

    >>> is_open({"vmap": 1.0, "loop": 2.0}, 5, 0.1), is_open({"vmap": 1.0, "loop": 1.1}, 5, 0.1)
    (False, True)
    """
    most_rounds, most_seconds = ENOUGH if max(least.values()) > CLEARLY * min(least.values()) else LIMIT
    return n_rounds < most_rounds and seconds < most_seconds


def chunk_size(state: TrainState, batch: Any) -> tuple[int, dict[str, Any]]:
    """How many members fit into one call, and the figures behind it.

    Raises:
        ConfigError: not even one does.
    """
    n_members, free = len(state.program.members), free_bytes(state.step.device)
    per_member = step_bytes(member(state, 0), share(batch, 0))
    return fitting(n_members, per_member, free), {"bytes_per_member": per_member, "free_bytes": free}


def fitting(n_members: int, per_member: int, free: int) -> int:
    """How many members one call can move.

    Args:
        n_members: that there are.
        per_member: bytes that a member's step takes.
        free: bytes that there are.

    Raises:
        ConfigError: not even one can be moved.

    >>> fitting(64, 2**20, 2**30), fitting(64, 2**26, 2**30)
    (64, 12)
    """
    chunk = min(n_members, int(USABLE * free / max(per_member, 1)))
    if chunk < 1:
        raise invalid("one step of one member does not fit into memory", "replicate", "chunk",
                      found=f"{bytes_text(per_member)} needed", expected=f"{bytes_text(free)} are free")  # fmt: skip
    if chunk < n_members:
        sizes = f"a member's step takes {bytes_text(per_member)} of {bytes_text(free)}"
        log.info("replicate.chunk: %d of %d members, since %s", chunk, n_members, sizes)
    return chunk


def step_bytes(state: TrainState, batch: Any) -> int:
    """What one step of a plain state takes besides the state: gradients, activations, results."""
    if state.program.run.compile == "eager":
        return BLIND_FACTOR * tree_bytes(state)
    learner = state.program.learner
    slim = attrs.evolve(state, program=state.program.step_part())
    try:
        return peak_bytes(lambda s, b: learner.update(s, b), slim, batch) + tree_bytes(batch)
    except RuntimeError as error:
        if not wants_value(error):
            raise
        return BLIND_FACTOR * tree_bytes(state)


def check_room(state: TrainState, n_members: int) -> None:
    """Refuse more members than memory can hold twice: while they are stacked, and whenever a checkpoint is written.

    Args:
        state: one member's.
        n_members: how many there will be.

    Raises:
        ConfigError: there is no room; it says how many there would be room for.
    """
    each, free = tree_bytes(state), free_bytes(state.step.device)
    if 2 * n_members * each > USABLE * free:
        room = int(USABLE * free / (2 * each))
        raise invalid("more members than memory can hold", "replicate",
                      found=f"{n_members} members of {bytes_text(each)}, twice: {bytes_text(2 * n_members * each)}",
                      expected=f"at most {room} members, since {bytes_text(free)} are free")  # fmt: skip


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device, by the narrowest limit that the system tells of."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    found = [
        room for room in (system_room(Path("/proc/meminfo")), group_room(Path("/sys/fs/cgroup"))) if room is not None
    ]
    return min(found, default=2**40)


def system_room(meminfo: Path) -> int | None:
    """What Linux says is available; None on other systems."""
    if not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None


def group_room(folder: Path) -> int | None:
    """What a container's limit leaves; None where there is no limit."""
    limit, used = folder / "memory.max", folder / "memory.current"
    if not limit.is_file() or not used.is_file() or limit.read_text().strip() == "max":
        return None
    return max(0, int(limit.read_text()) - int(used.read_text()))


def bytes_text(n: float) -> str:
    """A size as a person reads it.

    >>> bytes_text(1536), bytes_text(3 * 2**30)
    ('1.5 KiB', '3 GiB')
    """
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.3g} {unit}"
        n /= 1024
    return f"{n:.3g} TiB"
