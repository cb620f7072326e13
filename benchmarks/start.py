"""How long until the first step is done? Tracing, compiling, and a second start that finds the code on disk.

    python -m benchmarks.start
    python -m benchmarks.start --only "mlp 64" --rounds 5

Each figure is a process of its own: seconds from a built state to the end of its first step, imports of the compiler
included, imports of torch and ftrainer not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from . import harness
from .workloads import WORKLOADS, Workload

WAYS = ("trace", "inductor, cold", "inductor, warm")


def first_step(name: str, backend: str) -> float:
    """In the child: build, then time the first step."""
    from ftrainer.engine.stepper import Stepper, update  # noqa: PLC0415 (the parent need not import it)

    from .peers import state_of  # noqa: PLC0415

    workload = named(name)
    state, batch = state_of(workload, backend), workload.batches(1)[0]
    begin = time.perf_counter()
    Stepper(state, backend)(update, batch)
    return time.perf_counter() - begin


def named(name: str) -> Workload:
    """A workload by its name."""
    return next(workload for workload in WORKLOADS if workload.name == name)


def child(name: str, backend: str, cache: str) -> float:
    """Seconds that a process of its own took."""
    command = [sys.executable, "-m", "benchmarks.start", "--child", name, backend]
    places = {**os.environ, "FTRAINER_CACHE": cache, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=places)
    return float(run.stdout.splitlines()[-1])


def measure(name: str, n_rounds: int) -> dict[str, harness.Spread]:
    """Every way to start, each round with a cache that begins empty."""
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(n_rounds):
        with tempfile.TemporaryDirectory() as cache:
            for way in WAYS:
                taken[way].append(child(name, way.split(",")[0], cache))
    return {way: harness.spread(values) for way, values in taken.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write it down."""
    parser = argparse.ArgumentParser(prog="benchmarks.start", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", help="a workload, by name; may be repeated")
    parser.add_argument("--child", nargs=2, metavar=("WORKLOAD", "BACKEND"), help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        print(first_step(*chosen.child))
        return 0
    names = chosen.only or ["mlp 64", "mlp 1024", "conv net", "transformer"]
    results = {name: measure(name, chosen.rounds) for name in names}
    table = Table("", *WAYS, title="seconds to the end of the first step: median (least)")
    for name, row in results.items():
        table.add_row(name, *(f"{figures.median:.2f} ({figures.least:.2f})" for figures in row.values()))
    Console().print(table)
    if not chosen.only:
        content = {
            name: {way: harness.rounded(figures) for way, figures in row.items()} for name, row in results.items()
        }
        print(harness.write("start", {"rounds": chosen.rounds, "seconds": json.loads(json.dumps(content))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
