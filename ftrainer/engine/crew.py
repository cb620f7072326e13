"""What a loop is made of, by what it trains: one plain run, or a stack of them."""

from __future__ import annotations

from ftrainer.components.base import Data
from ftrainer.functional.state import Program

from .layout import Layout, decide
from .member_data import data_of_members
from .member_stepper import MemberStepper
from .reactions import MemberReactions, Reactions
from .resume import Beginning
from .stepper import Stepper


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
    layout = decide(begin.state, data) if saved is None else Layout(**saved)
    return MemberStepper(begin.state, program.run.compile, layout)


def reactions_of(begin: Beginning) -> Reactions | MemberReactions:
    """The callbacks and what they remember."""
    program = begin.state.program
    if not program.members:
        return Reactions(program.callbacks, begin.memories)
    return MemberReactions(program.callbacks, len(program.members), begin.memories)
