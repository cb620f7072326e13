"""Figures of a checkpoint: loss and metrics over a split, and what its evaluators say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from rich.markup import escape
from rich.table import Table

from ftrainer.components.base import Data
from ftrainer.components.loggers.outcome import values_text
from ftrainer.components.loggers.rows import number_text
from ftrainer.engine.accelerator import numerics
from ftrainer.engine.inference import evaluate
from ftrainer.engine.member_data import with_seed
from ftrainer.engine.roster import prefixed
from ftrainer.functional.replicate import unstack
from ftrainer.functional.state import TrainState
from registry import invalid
from registry.spec import replace

from .revive import Revived

Judgement = Mapping[str, Mapping[str, float]]
"""Figures, `val/loss` or `eval/return`, by the name of the run that they belong to."""


def judge(revived: Revived, split: str = "val", episodes: int | None = None) -> Judgement:
    """Judge a checkpoint as its run's last judgement would, with averaged weights where there are some.

    Args:
        revived: a run, or a stack of runs.
        split: `train` or `val`.
        episodes: how many of them the evaluators look at, instead of their own number.

    Raises:
        ConfigError: the split is empty, and no evaluator is there to say anything; or none counts episodes.
    """
    program = revived.program
    evaluators = program.evaluators if episodes is None else with_episodes(program.evaluators, episodes)
    if not revived.data.n_batches(split) and not program.evaluators:
        raise invalid(f"the {split} split is empty: there is nothing to evaluate", "data",
                      hint="`--split train`, or an override such as `data.val_fraction=0.1`")  # fmt: skip
    with numerics(program.run.precision, program.run.deterministic):
        return {name: figures(state, data, split, evaluators) for name, state, data in runs(revived)}


def with_episodes(evaluators: Mapping[str, Any], n: int) -> dict[str, Any]:
    """The evaluators with another number of episodes, where they count any.

    Raises:
        ConfigError: none does, or one refuses the number.
    """
    counting = {name for name, each in evaluators.items() if attrs.has(type(each)) and hasattr(each, "episodes")}
    if not counting:
        raise invalid("no evaluator counts episodes", "evaluators", found=", ".join(evaluators) or "none")
    return {name: replace(each, episodes=n) if name in counting else each for name, each in evaluators.items()}


def runs(revived: Revived) -> Iterator[tuple[str, TrainState, Data]]:
    """Name, state and data of the run, or of every member of a stack."""
    program, data = revived.program, revived.data
    if not program.members:
        yield program.run.name, revived.state, data
    for index, state in enumerate(unstack(revived.state)):
        own = program.replicate.data_order == "own"
        ordered = with_seed(data, state.program.run.seed) if own else data
        yield f"{index}: {values_text(state.program.values)}", state, ordered


def figures(state: TrainState, data: Data, split: str, evaluators: Mapping[str, Any]) -> dict[str, float]:
    """All figures of one plain run."""
    found: dict[str, float] = {}
    if data.n_batches(split):
        found |= {f"{split}/{name}": value for name, value in evaluate(state, data, split).items()}
    for name, evaluator in evaluators.items():
        told = prefixed({None: evaluator.evaluate(state)}, evaluators, name)[None]
        found |= {f"eval/{key}": value for key, value in told.items()}
    return found


def as_table(judgement: Judgement) -> Table:
    """One row for each figure of a run; for several runs, one row for each run."""
    table = Table()
    if len(judgement) == 1:
        ((_, own),) = judgement.items()
        table.add_column("figure")
        table.add_column("value", justify="right")
        for name, value in own.items():
            table.add_row(escape(name), number_text(value))
        return table
    names = list(dict.fromkeys(name for own in judgement.values() for name in own))
    table.add_column("member")
    for name in names:
        table.add_column(escape(name), justify="right")
    for run, own in judgement.items():
        table.add_row(escape(run), *(number_text(own[name]) if name in own else "–" for name in names))
    return table
