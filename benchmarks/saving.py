"""What do saving and logging cost the loop? The same run with and without, in turn.

    python -m benchmarks.saving

Saving is once in 200 steps of an MLP of width 1024 with AdamW (three copies of 1.1 million parameters); logging, every
10 steps, is to `metrics.jsonl`, CSV and plain lines. The loop is timed between two of its events, so that building,
tracing and the last save are left out; by the clock on the wall, and by the processor's time over all threads, which
neighbours on the machine disturb less and which is what saving costs where there is no second core for its thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ftrainer import build
from ftrainer.engine.environment import environment
from ftrainer.engine.loop import iterate
from ftrainer.functional.events import StepEnd

RESULT = Path(__file__).parent / "results" / "saving.json"
EVERY = 200


class Seconds(NamedTuple):
    """Two clocks: on the wall, and the processor's over all threads of this process."""

    wall: float
    cpu: float


def configuration(width: int, steps: int, out_dir: Path, log_every: int, **parts: Any) -> dict[str, Any]:
    """A run of an MLP 17→width→width→6 on batches of 256."""
    return {
        "run": {"name": "saving", "out_dir": str(out_dir), "compile": "inductor"},
        "model": {"sequential": {"layers": [{"_type_": "mlp", "dims": [None, width, width, 6]}]}},
        "data": {"_type_": "data.random_regression", "batch_size": 256, "steps_per_epoch": 50, "x_shape": [17],
                 "y_shape": [6]},
        "io": {"_type_": "io.mapping", "model_kwargs": {"x": ["x"]}, "targets": {"y": ["y"]}},
        "loss": {"_type_": "loss.torch", "fn": {"_type_": "nn.MSELoss"}},
        "optimizer": {"_type_": "optim.adamw", "lr": 1e-3},
        "trainer": {"_type_": "trainer.default", "max_steps": steps, "log_every_n_steps": log_every},
        **parts,
    }  # fmt: skip


def between(config: Mapping[str, Any], first: int, last: int) -> Seconds:
    """What passes from the end of step `first` to the end of step `last`, with what hangs on them."""
    state, data = build(config)
    marks = {}
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        for event in iterate(state, data, donate=True):
            if isinstance(event, StepEnd) and event.step in (first, last):
                marks[event.step] = Seconds(time.perf_counter(), time.process_time())
    return Seconds(*(after - before for after, before in zip(marks[last], marks[first], strict=True)))


def saving(root: Path, with_it: bool) -> Seconds:
    """Four saves' worth of steps at width 1024."""
    callbacks = [{"_type_": "cb.model_checkpoint", "save_dir": str(root / "saves"), "every_n_steps": EVERY}]
    config = configuration(1024, 4 * EVERY + 2, root, EVERY, callbacks=callbacks if with_it else [])
    return between(config, 1, 4 * EVERY + 1)


def logging(width: int, steps: int) -> Callable[[Path, bool], Seconds]:
    """Rows every 10 steps to files and lines, or no loggers; the loop fetches the figures in both."""

    def measure(root: Path, with_it: bool) -> Seconds:
        loggers = [{"_type_": "log.jsonl"}, {"_type_": "log.csv"}, {"_type_": "log.progress"}]
        config = configuration(width, steps + 2, root, 10, loggers=loggers if with_it else [])
        return between(config, 1, steps + 1)

    return measure


def paired(measure: Callable[[Path, bool], Seconds], pairs: int) -> dict[str, Any]:
    """Without and with, in turn: quartiles of what it adds, in percent of the time without."""
    added: dict[str, list[float]] = {clock: [] for clock in Seconds._fields}
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(pairs + 1):
            order = (False, True) if number % 2 else (True, False)
            taken = {with_it: measure(Path(temporary), with_it) for with_it in order}
            for clock, values in added.items():
                values.append(100 * (getattr(taken[True], clock) / getattr(taken[False], clock) - 1))
    # The first pair compiles.
    return {"pairs": pairs} | {f"{clock}, added %": quartiles(values[1:]) for clock, values in added.items()}


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [round(value, 2) for value in statistics.quantiles(values, n=4)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write it down."""
    parser = argparse.ArgumentParser(prog="benchmarks.saving", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8)
    pairs = parser.parse_args(arguments).pairs
    torch.set_num_threads(1)
    result = {
        f"saving every {EVERY} steps, width 1024": paired(saving, pairs),
        "logging every 10 steps, width 1024": paired(logging(1024, 200), pairs),
        "logging every 10 steps, width 256": paired(logging(256, 1000), pairs),
        "logging every 10 steps, width 64": paired(logging(64, 4000), pairs),
    }
    print(f"{'added, in %: quartiles':<40}{'wall':>24}{'processor':>24}")
    for name, figures in result.items():
        print(f"{name:<40}{figures['wall, added %']!s:>24}{figures['cpu, added %']!s:>24}")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"environment": environment(), **result}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
