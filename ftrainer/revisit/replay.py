"""One step of a run again, slowly: where did it stop being finite?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from ftrainer.components.base import Batch, Data
from ftrainer.components.data.memory import MemoryData
from ftrainer.config.permissions import permitted
from ftrainer.engine import checkpoint
from ftrainer.engine.accelerator import numerics, to_device
from ftrainer.engine.loop import iterate
from ftrainer.engine.member_data import with_seed
from ftrainer.engine.position import run_clock
from ftrainer.engine.resume import Beginning, restore
from ftrainer.experiment import plan, start
from ftrainer.functional import pytree
from ftrainer.functional.state import Program, TrainState
from registry import Registry, invalid
from registry.spec import replace

from .dissect import dissect
from .nonfinite import Finding, count_text, is_finite
from .revive import Overrides, plain, stored

N_ROWS = 12
"""Examples that are named in a sentence."""


@attrs.frozen(kw_only=True)
class Replay:
    """What a step of a run was about.

    Attributes:
        step: the attempt's number.
        origin: the checkpoint from which the run went there again; None for the run's beginning.
        batches: a sentence on each micro-batch.
        finding: where the first number arose that is not finite; None where all are finite.
    """

    step: int
    origin: Path | None
    batches: tuple[str, ...]
    finding: Finding | None

    def __str__(self) -> str:
        first = f"step {self.step}, reached from {self.origin or 'the beginning'}"
        told = "every number of the step is finite" if self.finding is None else f"first not finite: {self.finding}"
        return "\n".join([first, *self.batches, told])


def replay(
    place: Path, attempt: int, overrides: Overrides = (), *, member: int | None = None, registry: Registry | None = None
) -> Replay:
    """Go to a step of a run as the run went, and execute it eagerly, watching every module.

    Args:
        place: a run's directory, or one of its checkpoints.
        attempt: the step as it is logged, from 1.
        overrides, registry: as for `revive`.
        member: which one of a stack of runs.

    Raises:
        ConfigError: there is no intact checkpoint, the run has no such step, or its data cannot be had again.
    """
    nearest, config = checkpoint_before(place, attempt)
    begin, data = beginning(nearest, config, overrides, registry)
    program = begin.state.program
    clock = run_clock(program, data, begin.cursor)
    total = program.trainer.total_steps(clock.attempts_by)
    if not 1 <= attempt <= total:
        raise invalid("the run has no such step", "step", found=str(attempt), expected=f"1 to {total}")
    state = plain(walked(begin, data, attempt - 1 - clock.attempts(int(begin.state.tick.max()))), member)
    own, (epoch, places) = data_of_member(data, program, member), clock.place(attempt)
    policy, device = program.policy, state.step.device
    batches = [to_device(batch, device, policy.precision) for batch in at(own, epoch, places)]
    told = [
        f"epoch {epoch}, batch {n}: {told_of(b, rows(own, epoch, n))}" for n, b in zip(places, batches, strict=True)
    ]
    with numerics(policy.precision, program.run.deterministic):
        return Replay(step=attempt, origin=nearest, batches=tuple(told), finding=dissect(state, batches))


def checkpoint_before(place: Path, attempt: int) -> tuple[Path | None, dict[str, Any]]:
    """The last intact checkpoint before a step, if there is one, and the configuration of the run.

    Raises:
        ConfigError: there is no intact checkpoint at all, or none that knows the batches of that step.
    """
    manifests = {}
    for path in stored(place):
        try:
            manifests[path] = checkpoint.verify(path)
        except checkpoint.CheckpointError:
            continue
    if not manifests:
        raise invalid(f"{place}: no intact checkpoint there")
    steps = {path: manifest["cursor"]["step"] for path, manifest in manifests.items()}
    nearest = max((path for path in steps if steps[path] < attempt), key=steps.__getitem__, default=None)
    behind = min((path for path in steps if steps[path] >= attempt), key=steps.__getitem__, default=nearest)
    # A resume may have changed the batches: the checkpoint behind the step knows those of the step.
    chosen = next((path for path in (behind, nearest) if path and began(manifests[path]) < max(attempt, 1)), None)
    if chosen is None:
        least = min(map(began, manifests.values())) + 1
        raise invalid("the run had other batches then, which no checkpoint knows", "step",
                      found=str(attempt), expected=f"at least {least}")  # fmt: skip
    return nearest, permitted(manifests[chosen]["config"])


def began(manifest: Mapping[str, Any]) -> int:
    """The step after which a run had the batches that it had when this was saved."""
    return int(manifest["cursor"]["clock"]["from_step"])


def beginning(
    path: Path | None, config: dict[str, Any], overrides: Overrides, registry: Registry | None
) -> tuple[Beginning, Data]:
    """The run at a checkpoint, or at its beginning, as it goes on without leaving anything behind."""
    experiment = plan(config, overrides, registry=registry)
    program = experiment.program
    trainer = replace(program.trainer, max_time=None, max_bad_steps=2**62)
    silent = attrs.evolve(experiment, program=program.but(callbacks=(), loggers=(), trainer=trainer))
    cursor = {} if path is None else checkpoint.load_manifest(path)["cursor"]
    state, data = start(silent, cursor)
    return restore(state, data, path, keep_backend=program.run.compile == "auto"), data


def walked(begin: Beginning, data: Data, n: int) -> TrainState:
    """The state after so many further attempts."""
    state, left = begin.state, iter(range(n - 1))
    if n:
        for event in iterate(begin, data, donate=True, interrupted=lambda: None if next(left, -1) >= 0 else "there"):
            state = event.state
    return state


def data_of_member(data: Data, program: Program, member: int | None) -> Data:
    """The data in the order in which one member of a stack sees it."""
    if member is None:
        return data
    first = program.replicate.data_order == "shared"
    return with_seed(data, program.members[0 if first else member].run.seed)


def at(data: Data, epoch: int, places: range) -> Iterator[Batch]:
    """The training batches at some places of an epoch."""
    return islice(data.batches("train", epoch, places.start), len(places))


def rows(data: Data, epoch: int, index: int) -> Tensor | None:
    """The rows of in-memory data that make a batch, (B,); None where the data is not in memory."""
    if not isinstance(data, MemoryData):
        return None
    order = data.indices(epoch)
    positions = torch.arange(index * data.batch_size, (index + 1) * data.batch_size, device=order.device)
    return order[positions % len(order) if data.last == "pad" else positions[positions < len(order)]]


def told_of(batch: Batch, ids: Tensor | None) -> str:
    """Which examples a batch has, and what in it is not finite.

    >>> told_of({"x": torch.tensor([[1.0], [float("nan")]])}, torch.tensor([7, 3]))
    'rows 7, 3; x holds 1 nan among 2 numbers, in row 3'
    """
    parts = ["not in memory" if ids is None else f"rows {listed(ids.tolist())}"]
    for name, leaf in zip(pytree.paths(batch), pytree.leaves(batch), strict=True):
        if isinstance(leaf, Tensor) and not is_finite(leaf):
            which = (~leaf.isfinite()).reshape(len(leaf), -1).any(1).nonzero().squeeze(1)
            where = (
                f"example {listed(which.tolist())}"
                if ids is None
                else f"row {listed(ids[which.to(ids.device)].tolist())}"
            )
            parts.append(f"{name} holds {count_text(leaf)}, in {where}")
    return "; ".join(parts)


def listed(numbers: Sequence[int]) -> str:
    """Numbers, the first few of many.

    >>> listed([1, 2]), listed(list(range(40)))[:31]
    ('1, 2', '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1')
    """
    more = f" and {len(numbers) - N_ROWS} more" if len(numbers) > N_ROWS else ""
    return ", ".join(map(str, numbers[:N_ROWS])) + more
