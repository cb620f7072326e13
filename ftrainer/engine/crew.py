"""What a loop is made of, by what it trains: one plain run, or a stack of them."""

from __future__ import annotations

import time
from typing import Any

import torch

from ftrainer.components.base import Data
from ftrainer.functional import pytree
from ftrainer.functional.state import Program, TrainState

from .accelerator import to_device
from .layout import Clocked, Layout, decide
from .member_data import data_of_members
from .member_stepper import MemberStepper
from .reactions import MemberReactions, Reactions, reacting
from .resume import Beginning
from .stepper import Stepper, update


def data_of(program: Program, data: Data) -> Data:
    """The data as the run's step wants its batches."""
    if not program.members:
        return data
    return data_of_members(data, [member.run.seed for member in program.members], program.replicate.data_order)


def stepper_of(begin: Beginning, data: Data) -> Stepper | MemberStepper:
    """What moves the state."""
    program = begin.state.program
    if not program.members:
        return Stepper(begin.state, program.run.compile)
    saved = begin.cursor.get("layout")
    layout = layout_of(begin.state, data) if saved is None else Layout(**saved)
    return MemberStepper(begin.state, program.run.compile, layout)


def layout_of(state: TrainState, data: Data) -> Layout:
    """What the settings ask for, tried out on a copy of the state and the first batch."""
    batch = to_device(next(iter(data.batches("train", 0))), state.step.device, state.program.policy.precision)
    return decide(state, batch, lambda chunk: clock_of(state, batch, chunk))


def clock_of(state: TrainState, batch: Any, chunk: int) -> Clocked:
    """Steps of a copy of the state, by either strategy, and how long one took."""
    copy, backend = pytree.map(torch.clone, state), state.program.run.compile
    layouts = (Layout(strategy="vmap", chunk=chunk), Layout(strategy="loop", chunk=1))
    steppers: dict[str, MemberStepper] = {layout.strategy: MemberStepper(copy, backend, layout) for layout in layouts}

    def clocked(strategy: str, n_steps: int) -> float:
        start = time.perf_counter()
        for _ in range(n_steps):
            metrics = steppers[strategy](update, batch)
        metrics["skipped"].sum().item()  # waits for the device
        return (time.perf_counter() - start) / n_steps

    return clocked


def reactions_of(begin: Beginning) -> Reactions | MemberReactions:
    """The callbacks and what they remember."""
    program = begin.state.program
    if not program.members:
        return Reactions(reacting(program), begin.memories)
    return MemberReactions(reacting(program), len(program.members), begin.memories)
