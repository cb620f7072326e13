"""A compiled function on a GPU, played from a recording: the host launches one graph instead of every kernel.

A recording knows its tensors by address. Donated ones are its own, since a state moves in place from step to step; all
others are copied into places that stay, and what comes out is copied away, so that callers may keep it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor

log = logging.getLogger("ftrainer.jit")

Flat = Callable[..., Sequence[Any]]
WARM_UP = 2
"""Calls that run plainly before one is recorded: kernels are loaded and tuned, libraries find their workspaces."""
MOST = 64
"""Recordings of one function that are kept, each for other donated tensors: a run's, or a member's that moves alone."""
IDLE = 1000
"""Calls of the function after which a recording that none of them played may make room for another."""


class RecordingError(RuntimeError):
    """A function that the GPU's driver refuses to record."""


class Recorder(Protocol):
    """What runs and records calls: `deps.cuda_graphs.Recorder` on a GPU."""

    def run(self, fn: Flat, tensors: Sequence[Tensor]) -> Sequence[Any]:
        """Call a function now."""
        ...

    def record(self, fn: Flat, tensors: Sequence[Tensor]) -> tuple[Callable[[], None], Sequence[Any]]:
        """What calls the function on these very tensors again, and where that leaves its results; computes nothing."""
        ...


@attrs.define
class Recording:
    """One recorded call: what plays it, where it leaves its results, and which call of the function played it last."""

    replay: Callable[[], None]
    results: Sequence[Any]
    last: int


class Recorded:
    """A flat function, played from recordings.

    Args:
        run: the function. It reads and writes tensors of one GPU alone.
        tensors: arguments like those of every call.
        donated: places of the arguments that it overwrites.
        recorder: runs and records.
        name: for messages.

    Raises:
        RecordingError: when called, by a function that cannot be recorded. Its arguments are untouched then.
    """

    def __init__(self, run: Flat, tensors: Sequence[Tensor], donated: Collection[int], recorder: Recorder, name: str):
        self.run, self.recorder, self.name = run, recorder, name
        self.donated = sorted(donated)
        self.others = [place for place in range(len(tensors)) if place not in donated]
        self.places = {place: torch.empty_strided(tensors[place].shape, tensors[place].stride(),
                       dtype=tensors[place].dtype, device=tensors[place].device) for place in self.others}  # fmt: skip
        self.recordings: dict[tuple[int, ...], Recording] = {}
        self.calls = 0
        self.is_full = False

    def __call__(self, *tensors: Tensor) -> Sequence[Any]:
        self.calls += 1
        if self.calls <= WARM_UP:
            return self.recorder.run(self.run, tensors)
        recording = self.recording_for(tensors)
        if recording is None:
            return self.run(*tensors)
        recording.last = self.calls
        for place, kept in self.places.items():
            compact(kept).copy_(compact(tensors[place]), non_blocking=True)
        recording.replay()
        return [result.clone() if isinstance(result, Tensor) else result for result in recording.results]

    def recording_for(self, tensors: Sequence[Tensor]) -> Recording | None:
        """The recording for these donated tensors, made now if need be; None where there is no room for one more."""
        addresses = tuple(tensors[place].data_ptr() for place in self.donated)
        if addresses not in self.recordings and self.has_room():
            if self.recordings:
                log.info("%s met other donated tensors and is recorded anew (%d)", self.name, len(self.recordings) + 1)
            self.recordings[addresses] = self.record(tensors)
        return self.recordings.get(addresses)

    def has_room(self) -> bool:
        """Whether one more recording may be kept, perhaps instead of one that has been idle for long."""
        if len(self.recordings) < MOST:
            return True
        oldest = min(self.recordings, key=lambda addresses: self.recordings[addresses].last)
        if self.calls - self.recordings[oldest].last > IDLE:
            del self.recordings[oldest]
            return True
        if not self.is_full:
            log.warning("%s has %d recordings in use; calls with other donated tensors run plainly", self.name, MOST)
        self.is_full = True
        return False

    def record(self, tensors: Sequence[Tensor]) -> Recording:
        """A recording that reads and writes these donated tensors; nothing moves."""
        given = [self.places.get(place, tensor) for place, tensor in enumerate(tensors)]
        try:
            replay, results = self.recorder.record(self.run, given)
        except RuntimeError as error:
            why = str(error).splitlines()[0]
            cure = "set `run.compile: inductor`"
            raise RecordingError(f"{self.name} cannot be recorded as a CUDA graph ({why}); {cure}") from error
        return Recording(replay, results, self.calls)


def compact(tensor: Tensor) -> Tensor:
    """A tensor with every expanded dimension, whose elements are one in memory, cut to that one: it can be written."""
    for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        tensor = tensor.narrow(dim, 0, 1) if stride == 0 and size > 1 else tensor
    return tensor


def on_host(tensors: Sequence[Tensor], paths: Sequence[str], name: str) -> bool:
    """Whether an argument lies in the host's memory, which no recording can read; says which."""
    found = [path for path, tensor in zip(paths, tensors, strict=True) if tensor.device.type == "cpu"]
    if found:
        log.info("%s runs without CUDA graphs, since %s is on the CPU", name, ", ".join(found[:4]))
    return bool(found)
