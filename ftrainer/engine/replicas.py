"""From one run to many: every member begins as it would alone, then all are stacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from frozendict import frozendict

from ftrainer.components.base import Data
from ftrainer.components.data.adapt import as_data
from ftrainer.components.data.memory import MemoryData
from ftrainer.config.overrides import split_path
from ftrainer.config.replicate import SEED, Replicate, Values, not_sweepable
from ftrainer.functional.replicate import StackError, stack
from ftrainer.functional.state import Program, TrainState, evolve_at
from registry.issue import ConfigError, invalid
from registry.spec import thaw

from .accelerator import pick_device
from .layout import check_room
from .member_data import with_seed
from .start import LazyStatistics, initial_state


def replicate(state: TrainState, data: Any = None, **settings: Any) -> TrainState:
    """A run as many: other seeds, other values, one state whose every tensor has a leading axis of members.

    Args:
        state: a plain state from `build`; its program is what is replicated, its tensors are not read.
        data: what `build` gave with it; opened anew unless given. It tells shapes and statistics.
        settings: those of the section `replicate:`: `seeds`, `over` (`{"optimizer.lr": [1e-3, 1e-2]}`, by the fields
            of components), `combine`, `data_order`, `strategy`, `chunk`.

    Raises:
        ConfigError: a setting is wrong, or a field cannot be swept.
    """
    chosen, program = Replicate(**settings), state.program
    if program.members:
        raise invalid("is a stack of runs already", found=f"{len(program.members)} members")
    if chosen.groups:
        raise invalid("one state cannot hold several groups", "groups", hint="replicate once for each, or train a file")
    (group,) = chosen.split(program.run.seed)
    opened = program.data.open(seed=program.run.seed, device=pick_device(program.run.device)) if data is None else data
    members = tuple(with_values(program, values) for values in group.members)
    return stacked(program.but(members=members, replicate=chosen), as_data(opened))


def with_values(program: Program, values: Values) -> Program:
    """A plain program with a seed and with other numbers in its learner.

    Raises:
        ConfigError: the learner has no such field, or not one that may be swept, or the value does not suit it.
    """
    learner = program.learner
    for path, value in values.items():
        if path != SEED:
            try:
                learner = evolve_at(learner, ".".join(split_path(path)[0]), value)
            except KeyError as error:
                raise not_sweepable(path, error.args[0]) from error
            except ConfigError as error:
                raise ConfigError(issue.under(("replicate", "over", path)) for issue in error.issues) from error
    run = attrs.evolve(program.run, seed=values[SEED])
    return program.but(learner=learner, run=run, values=frozendict(values))


def stacked(program: Program, data: Data) -> TrainState:
    """Step zero of every member of a program, as one state.

    Args:
        program: with `members`, which know the run's length, and with the settings of `replicate`.
        data: what all of them train on.

    Raises:
        ConfigError: the members' states cannot be stacked.
    """
    members, own = program.members, program.replicate.data_order == "own"
    statistics = LazyStatistics(data) if isinstance(data, MemoryData) else None
    seeds = [member.run.seed if own else members[0].run.seed for member in members]
    ordered = [with_seed(data, seed) for seed in seeds]
    states = [initial_state(members[0], ordered[0], statistics)]
    check_room(states[0], len(members))
    states += [initial_state(*each, statistics) for each in zip(members[1:], ordered[1:], strict=True)]
    try:
        together = stack(states)
    except StackError as error:
        raise cannot_be_stacked(error, members) from error
    return attrs.evolve(together, program=program.but(learner=members[0].learner, members=members))


def cannot_be_stacked(error: StackError, programs: Sequence[Program]) -> ConfigError:
    """The error that names what is swept."""
    paths = list(dict.fromkeys(path for program in programs for path in program.values if path != SEED))
    hint = f"write `groups: [{', '.join(paths)}]` under `replicate` to train each value by itself" if paths else None
    return invalid(str(error), "replicate", *(("over",) if paths else ()), hint=hint)


def same_members(saved: Sequence[Mapping[str, Any]] | None, program: Program) -> None:
    """Check that a checkpoint's members are this program's.

    Raises:
        ConfigError: they are others, or one of the two is a plain run.
    """
    found = [dict(values) for values in saved or ()]
    expected = [thaw(each.values) for each in program.members]
    for index, (theirs, ours) in enumerate(zip(found, expected, strict=False)):
        if theirs != ours:
            raise invalid(f"the checkpoint's member {index} is another one", "replicate", found=str(theirs),
                          expected=str(ours))  # fmt: skip
    if len(found) != len(expected):
        raise invalid("the checkpoint holds other members", "replicate", found=count_text(len(found)),
                      expected=count_text(len(expected)))  # fmt: skip


def count_text(n: int) -> str:
    """How many members, in words.

    >>> count_text(0), count_text(3)
    ('a plain run', '3 members')
    """
    return f"{n} members" if n else "a plain run"
