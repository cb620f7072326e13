"""How long until the first step is done? Tracing, compiling, and a second start that finds the code on disk.

    python -m benchmarks.start
    python -m benchmarks.start --only "mlp 64" --rounds 5
    python -m benchmarks.start --device cuda

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
GRAPHS = "cuda_graphs, warm, to the first that is played"


def ways_on(device: str) -> tuple[str, ...]:
    """The ways to start that a device has."""
    return (*WAYS, *((GRAPHS,) if device == "cuda" else ()))


def first_step(name: str, backend: str, device: str) -> float:
    """In the child: build, then time the first step; with CUDA graphs, all up to the first that is played."""
    from ftrainer.engine.stepper import Stepper, update  # noqa: PLC0415 (the parent need not import it)
    from ftrainer.functional.graph.recording import WARM_UP  # noqa: PLC0415

    from .peers import state_of  # noqa: PLC0415

    workload = named(name).on(device)
    state, batch = state_of(workload, backend), workload.batches(1)[0]
    stepper, n_steps = Stepper(state, backend), 1 + WARM_UP if backend == "cuda_graphs" else 1
    workload.wait()
    begin = time.perf_counter()
    for _ in range(n_steps):
        stepper(update, batch)
    workload.wait()
    return time.perf_counter() - begin


def named(name: str) -> Workload:
    """A workload by its name."""
    return next(workload for workload in WORKLOADS if workload.name == name)


def child(name: str, backend: str, device: str, cache: str) -> float:
    """Seconds that a process of its own took."""
    command = [sys.executable, "-m", "benchmarks.start", "--child", name, backend, device]
    places = {**os.environ, "FTRAINER_CACHE": cache, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=places)
    return float(run.stdout.splitlines()[-1])


def measure(name: str, n_rounds: int, device: str = "cpu") -> dict[str, harness.Spread]:
    """Every way to start, each round with a cache that begins empty."""
    taken: dict[str, list[float]] = {way: [] for way in ways_on(device)}
    for _ in range(n_rounds):
        with tempfile.TemporaryDirectory() as cache:
            for way in taken:
                taken[way].append(child(name, way.split(",")[0], device, cache))
    return {way: harness.spread(values) for way, values in taken.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write it down."""
    parser = argparse.ArgumentParser(prog="benchmarks.start", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", help="a workload, by name; may be repeated")
    parser.add_argument("--child", nargs=3, metavar=("WORKLOAD", "BACKEND", "DEVICE"), help=argparse.SUPPRESS)
    harness.ask_device(parser)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        print(first_step(*chosen.child))
        return 0
    names = chosen.only or ["mlp 64", "mlp 1024", "conv net", "transformer"]
    results = {name: measure(name, chosen.rounds, chosen.device) for name in names}
    table = Table("", *ways_on(chosen.device), title="seconds to the end of the first step: median (least)")
    for name, row in results.items():
        table.add_row(name, *(f"{figures.median:.2f} ({figures.least:.2f})" for figures in row.values()))
    Console().print(table)
    if not chosen.only:
        content = {
            name: {way: harness.rounded(figures) for way, figures in row.items()} for name, row in results.items()
        }
        figures = {"rounds": chosen.rounds, "seconds": json.loads(json.dumps(content))}
        print(harness.write(harness.called("start", chosen.device), figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
