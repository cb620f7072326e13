"""What do the guard, saving and logging cost? Whole calls of `fit` with and without, in turn.

    python -m benchmarks.loop
    python -m benchmarks.loop --only "guard, mlp 64" --rounds 25
    python -m benchmarks.loop --device cuda

The step is compiled and torch has one thread; the copy of the state that `fit` makes, the loop, and its last save are
in the time. The guard is `grads` against `off`. Saving is once in 200 steps (three copies of 1.1 million parameters at
width 1024). Logging is every 10 steps to `metrics.jsonl`, CSV and plain lines, against none at all. Two clocks are
read: the one on the wall, and the processor's over all threads, which is what saving costs where there is no second
core for its thread.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import attrs
import torch
from rich.console import Console
from rich.table import Table

from ftrainer import build, builtin_registry, fit

from . import harness
from .peers import configuration
from .workloads import FACTORIES, Workload, perceptron

EVERY, NEVER = 200, 10**9
LOGGERS = ("log.jsonl", "log.csv", "log.progress")
Sections = Mapping[str, Any]


class Seconds(NamedTuple):
    """Two clocks, per step: on the wall, and the processor's over all threads of this process."""

    wall: float
    processor: float


@attrs.frozen(kw_only=True)
class Question:
    """What is added to a run, and what it may cost.

    Attributes:
        workload: what is trained, for how many steps in one call of `fit`.
        with_it, without: settings of `trainer`, and other sections, of the two runs.
        limit: percent of the time without that it may add.
        microseconds: or so many per step.
    """

    workload: Workload
    with_it: Sections
    without: Sections
    limit: float
    microseconds: float = 0.0


def guard(workload: Workload, limit: float) -> Question:
    """All or nothing, against never looking."""
    return Question(
        workload=workload,
        with_it={"trainer": {"guard": "grads"}},
        without={"trainer": {"guard": "off"}},
        limit=limit,
        microseconds=5.0,
    )


def saving(root: Path) -> Question:
    """Two saves, the last of which `fit` waits for."""
    callback = {"_type_": "cb.model_checkpoint", "save_dir": str(root / "saves"), "every_n_steps": EVERY}
    quiet = {"trainer": {"log_every_n_steps": EVERY}}
    return Question(
        workload=perceptron(1024, 2 * EVERY),
        with_it={**quiet, "callbacks": [{**callback, "save_last": False}]},
        without=quiet,
        limit=2.0,
    )


def logging(workload: Workload, root: Path) -> Question:
    """Figures fetched, and rows written, every 10 steps; against neither."""
    loggers = [{"_type_": key} for key in LOGGERS]
    return Question(
        workload=workload,
        with_it={"trainer": {"log_every_n_steps": 10}, "loggers": loggers, "run": {"out_dir": str(root)}},
        without={"trainer": {"log_every_n_steps": NEVER}},
        limit=2.0,
    )


TOWER = Workload(
    name="6 x 2048²", kind="tower", sizes={"width": 2048, "depth": 6}, shape=(2048,), batch_size=32, steps=12
)
QUESTIONS: Mapping[str, Callable[[Path], Question]] = MappingProxyType(
    {
        "guard, mlp 64": lambda root: guard(perceptron(64, 1000), 5.0),
        "guard, mlp 256": lambda root: guard(perceptron(256, 150), 5.0),
        "guard, mlp 1024": lambda root: guard(perceptron(1024, 25), 5.0),
        f"guard, {TOWER.name}": lambda root: guard(TOWER, 15.0),
        f"saving every {EVERY}, mlp 1024": saving,
        "logging every 10, mlp 64": partial(logging, perceptron(64, 8000)),
        "logging every 10, mlp 256": partial(logging, perceptron(256, 1500)),
        "logging every 10, mlp 1024": partial(logging, perceptron(1024, 100)),
    }
)


def runner(workload: Workload, sections: Sections) -> Callable[[], Seconds]:
    """A whole `fit` from the same state on the same batches, each time it is called."""
    registry = builtin_registry()
    for kind, factory in FACTORIES.items():
        registry = registry.register(f"benchmark.{kind}", factory)
    plain = configuration(workload, "inductor")
    parts = {
        name: {**plain.get(name, {}), **own} if isinstance(own, Mapping) else own for name, own in sections.items()
    }
    state, _ = build({**plain, **parts}, registry=registry)
    batches = workload.batches(32)

    def run() -> Seconds:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            wall, processor = time.perf_counter(), time.process_time()
            fit(state, batches)
            workload.wait()
            return Seconds(*(
                taken / workload.steps for taken in (time.perf_counter() - wall, time.process_time() - processor)
            ))  # fmt: skip

    return run


def measure(question: Question, n_rounds: int) -> dict[str, Any]:
    """With and without, in turn: what it adds, in percent of the time without and in microseconds per step."""
    runners = [runner(question.workload, sections) for sections in (question.without, question.with_it)]
    pairs = []
    for number in range(n_rounds + 1):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        taken = {which: runners[which]() for which in order}
        pairs.append((taken[0], taken[1]))
    figures: dict[str, Any] = {"rounds": n_rounds, "steps": question.workload.steps, "may add %": question.limit}
    for clock in Seconds._fields:  # the first pair compiles
        both = [(getattr(a, clock), getattr(b, clock)) for a, b in pairs[1:]]
        figures[clock] = {
            "microseconds without": shown([1e6 * a for a, _ in both]),
            "added %": shown([100 * (b / a - 1) for a, b in both]),
            "added microseconds": shown([1e6 * (b - a) for a, b in both]),
        }
    return figures | {"kept": is_kept(figures, question)}


def shown(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    return harness.rounded(harness.spread(values))


def is_kept(figures: Mapping[str, Any], question: Question) -> bool:
    """Whether the median by the wall is within the limit."""
    wall = figures["wall"]
    return bool(
        wall["added %"]["median"] <= question.limit or wall["added microseconds"]["median"] <= question.microseconds
    )


def show(results: Mapping[str, Mapping[str, Any]]) -> None:
    """One row for each question."""
    table = Table("", "µs per step", "added by the wall", "added µs", "added by the processor", "may add", "kept")
    for name, own in results.items():
        wall, processor = own["wall"], own["processor"]
        table.add_row(name, f"{wall['microseconds without']['median']:,.0f}", percent(wall["added %"]),
                      f"{wall['added microseconds']['median']:,.1f}", percent(processor["added %"]),
                      f"{own['may add %']:g}%", "yes" if own["kept"] else "no")  # fmt: skip
    Console(width=None if os.isatty(1) else 140).print(table)


def percent(values: Mapping[str, float]) -> str:
    """The median, and the quartiles behind it."""
    return f"{values['median']:+.1f}% ({values['low']:+.1f} to {values['high']:+.1f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and add what was measured to the results."""
    parser = argparse.ArgumentParser(prog="benchmarks.loop", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--only", action="append", choices=list(QUESTIONS), metavar="NAME", help=", ".join(QUESTIONS))
    harness.ask_device(parser)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in chosen.only or QUESTIONS:
            question = QUESTIONS[name](Path(temporary))
            there = attrs.evolve(question, workload=question.workload.on(chosen.device))
            results[name] = measure(there, chosen.rounds)
            show({name: results[name]})
    show(results)
    file = harness.called("loop", chosen.device)
    print(harness.write(file, harness.merged(file, results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
